"""The coursework's interface, statement by statement, judged by formulas written out here."""
