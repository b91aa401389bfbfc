"""Pictures of one's own: a folder with a subfolder per class, or a folder and a CSV file of labels."""

from functools import cached_property
from pathlib import Path
from typing import Literal

from cifar10.data.pictures import Pictures
from cifar10.data.pictures.listing import list_folder, list_table


class ImageFolder:
    """Pictures in `<root>/<class>/`, or in `<root>/<split>/<class>/` where root holds train, val or test folders.

    labels: a CSV file with columns file, label and, if it says, split, which then counts in place of the folders.
    classes: "top" takes the first folder for the class and gathers the pictures of all folders below it; "leaf" takes
    the innermost folders, named by their path, such as "animal/cat".
    Classes are in natural order: 1, 2, 10.
    """

    synthetic = False

    def __init__(self, root: str | Path, labels: str | None = None, classes: Literal["top", "leaf"] = "top") -> None:
        if not str(root).strip():
            raise ValueError(f"root={root}: must be a folder of pictures")
        if classes not in ("top", "leaf"):
            raise ValueError(f"classes={classes}: must be top or leaf")
        self.root = Path(root).expanduser()
        self.labels = labels
        self.classes = classes
        self.name = str(root)

    @cached_property
    def _listing(self) -> tuple[Pictures, tuple[str, ...]]:
        if self.labels:
            return list_table(self.root, Path(self.labels).expanduser())
        return list_folder(self.root, leaf=self.classes == "leaf")

    @property
    def class_names(self) -> tuple[str, ...]:
        return self._listing[1]

    def prepare(self) -> None:
        """List the pictures. Raises UserError for a folder or a table that is no data set."""
        _ = self._listing

    def pictures(self) -> Pictures:
        return self._listing[0]
