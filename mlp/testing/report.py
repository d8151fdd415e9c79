"""What a check found: a table, in a terminal and in a notebook, and an exception that names what is wrong."""

import textwrap
from html import escape
from typing import Any, NamedTuple


class CheckedArray(NamedTuple):
    """One array whose gradient was checked.

    `mode` is training, evaluation, or "both" where they do not differ; `derivatives` is the number of derivatives
    compared, of `size` entries (one by one where the two are equal, along random directions otherwise). `complex_step`
    and `central_differences` are the largest wrong derivative over the largest derivative, None where the method was
    not used. Not `resolved` is a gradient too small to tell from rounding errors, as that of a bias before a batch
    normalisation, which is 0. `kinks` counts derivatives at an exact kink or tie, where any sub-gradient is right.
    """

    name: str
    mode: str
    size: int
    derivatives: int
    complex_step: float | None
    central_differences: float | None
    tolerances: tuple[float, float]
    resolved: bool = True
    kinks: int = 0

    @property
    def right(self) -> bool:
        """Whether both errors are within their tolerances (NaN is not)."""
        errors = zip((self.complex_step, self.central_differences), self.tolerances, strict=True)
        return all(error is None or error <= tolerance for error, tolerance in errors)

    def cells(self) -> tuple[str, ...]:
        """Return the cells of the array's row in the table."""
        checked = f"{self.derivatives} of {self.size}" if self.derivatives == self.size else f"{self.derivatives} ways"
        errors = ("-" if e is None else f"{e:.1e}" for e in (self.complex_step, self.central_differences))
        kinks = f"{self.kinks} at kinks" if self.kinks else ""
        remark = "" if self.right else "WRONG"
        return self.name, self.mode, checked, *errors, remark or kinks or ("" if self.resolved else "0 to rounding")


_LONG = 30
_TITLES = ("array", "mode", "derivatives", "complex step", "central differences", "")


class GradientReport(NamedTuple):
    """What was checked and how well it agreed; prints as a table, in a notebook too.

    `arrays` are the rows, `conduct` the promises that were kept, `notes` what one should know, `causes` what is wrong.
    """

    subject: str
    arrays: tuple[CheckedArray, ...]
    conduct: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    causes: tuple[str, ...] = ()

    @property
    def right(self) -> bool:
        """Whether every array's gradient is right."""
        return all(array.right for array in self.arrays)

    @property
    def worst(self) -> float:
        """The worst relative error by the complex step, or by central differences where it was not used."""
        used = [a.central_differences if a.complex_step is None else a.complex_step for a in self.arrays]
        return max((error for error in used if error is not None), key=lambda e: (e != e, e), default=0.0)

    def _lines(self) -> list[str]:
        checks = [f"also right: {'; '.join(self.conduct)}"] if self.conduct else []
        return [*checks, *(f"note: {note}" for note in self.notes)]

    def _head(self) -> str:
        untested = all(array.complex_step == 0.0 and not array.resolved for array in self.arrays)
        verdict = "0 everywhere, so that nothing was tested" if untested else "right" if self.right else "WRONG"
        return f"gradients of {self.subject}: {verdict}"

    def _shown(self) -> tuple[list[CheckedArray], list[str]]:
        """Return the rows to show, all or of a long table the wrong ones, and the rest in words."""
        wrong = [array for array in self.arrays if not array.right]
        if len(self.arrays) <= _LONG or not wrong:
            return list(self.arrays), []
        return wrong, [f"{len(self.arrays) - len(wrong)} other gradients are right"]

    def __repr__(self) -> str:
        shown, rest = self._shown()
        rows = [_TITLES, *(array.cells() for array in shown)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(_TITLES))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        remarks = (textwrap.fill(x, 116, initial_indent="  ", subsequent_indent="    ") for x in rest + self._lines())
        causes = (f"  {cause}" for cause in self.causes)
        return "\n".join([self._head(), *(f"  {line}".rstrip() for line in lines), *remarks, *causes])

    def _repr_html_(self) -> str:
        """Return the table for a notebook."""
        head = "".join(f"<th>{escape(title)}</th>" for title in _TITLES)
        shown, rest = self._shown()
        rows = ""
        for array in shown:
            style = "" if array.right else ' style="color: #c00; font-weight: bold"'
            rows += f"<tr{style}>{''.join(f'<td>{escape(cell)}</td>' for cell in array.cells())}</tr>"
        lines = "".join(f"<p>{escape(line)}</p>" for line in [*rest, *self._lines(), *self.causes])
        return f"<p>{escape(self._head())}</p><table><tr>{head}</tr>{rows}</table>{lines}"


class GradientError(AssertionError):
    """A gradient is wrong, or a promise of a layer is broken. The message says all; the parts are attributes.

    `subject` (text), `mode`, `array` (its name), `index` (of a wrong entry), `got`, `expected`, `cause` (a guess) and
    `report` (a GradientReport) are None where they do not apply.
    """

    def __init__(
        self,
        message: str,
        *,
        subject: str | None = None,
        mode: str | None = None,
        array: str | None = None,
        index: tuple[int, ...] | None = None,
        got: Any = None,
        expected: Any = None,
        cause: str | None = None,
        report: GradientReport | None = None,
    ) -> None:
        super().__init__(message)
        self.subject, self.mode, self.array, self.index = subject, mode, array, index
        self.got, self.expected, self.cause, self.report = got, expected, cause, report
