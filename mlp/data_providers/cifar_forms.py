"""What the official archives of CIFAR-10 and CIFAR-100 are, and what is in them."""

from typing import NamedTuple

from mlp.data_providers.download import RemoteFile

SERVER = "https://www.cs.toronto.edu/~kriz/"


class Form(NamedTuple):
    """One form of a data set: its archive, and the folder and the files in it."""

    archive: RemoteFile
    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    names: str
    label: str
    """Python archives: the key of the labels, and of their names with `_names` for the last letter."""
    header: int = 1
    """Binary archives: bytes of a record before its image, the last of them its label."""
    label_at: int = -1
    """Binary archives: which byte of the header is the label."""

    @property
    def is_binary(self) -> bool:
        """Whether its files are plain records, not pickles."""
        return self.names.endswith(".txt")

    def coarse(self) -> "Form":
        """Return the form with CIFAR-100's 20 superclasses for labels."""
        names = self.names.replace("fine", "coarse")
        return self._replace(names=names, label="coarse_labels", label_at=0)


def _archive(name: str, size: int, md5: str, sha256: str) -> RemoteFile:
    """Return an archive: the MD5 is the authors', the SHA-256 from TensorFlow Datasets (binary) or Keras (Python)."""
    return RemoteFile(name, SERVER + name, size, md5, sha256)


_BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))
FORMS = {
    "cifar100": (
        Form(
            _archive(
                "cifar-100-binary.tar.gz",
                168_513_733,
                "03b5dce01913d631647c71ecec9e9cb8",
                "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
            ),
            "cifar-100-binary",
            ("train.bin",),
            ("test.bin",),
            "fine_label_names.txt",
            "fine_labels",
            header=2,
        ),
        Form(
            _archive(
                "cifar-100-python.tar.gz",
                169_001_437,
                "eb9058c3a382ffc7106e4002c42a8d85",
                "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
            ),
            "cifar-100-python",
            ("train",),
            ("test",),
            "meta",
            "fine_labels",
        ),
    ),
    "cifar10": (
        Form(
            _archive(
                "cifar-10-binary.tar.gz",
                170_052_171,
                "c32a1d4ab5d03f1284b67883e8d87530",
                "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            ),
            "cifar-10-batches-bin",
            tuple(f"{name}.bin" for name in _BATCHES),
            ("test_batch.bin",),
            "batches.meta.txt",
            "labels",
        ),
        Form(
            _archive(
                "cifar-10-python.tar.gz",
                170_498_071,
                "c58f30108f718f92721af3b95e74349a",
                "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
            ),
            "cifar-10-batches-py",
            _BATCHES,
            ("test_batch",),
            "batches.meta",
            "labels",
        ),
    ),
}
NUM_CLASSES = {"cifar100": 100, "cifar10": 10}
NUM_COARSE_CLASSES = 20
NUM_TRAIN, NUM_TEST = 50_000, 10_000
