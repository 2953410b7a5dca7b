"""Writes a repository's addresses into what is released: they are known where it is released, and not before.

    python .github/addresses.py REPOSITORY_URL SITE_URL TAG

gives ``pyproject.toml`` its `project.urls`, and ``README.md`` links that also lead somewhere on a package index.
"""

import re
import sys
from pathlib import Path


def with_urls(project: str, repository: str, site: str, tag: str) -> str:
    """Return ``pyproject.toml`` with the addresses under `project.urls`."""
    urls = {
        "Documentation": site,
        "Repository": repository,
        "Changelog": f"{repository}/blob/{tag}/CHANGELOG.md",
        "Issues": f"{repository}/issues",
    }
    lines = "".join(f'{name} = "{url}"\n' for name, url in urls.items())
    return project.replace("[project.urls]\n", f"[project.urls]\n{lines}", 1)


def with_whole_links(page: str, repository: str, tag: str) -> str:
    """Return a page whose links into the repository are whole addresses, those of pictures too."""
    page = re.sub(r"(!\[[^\]]*\])\((?!\w+:|#)", rf"\1({repository}/raw/{tag}/", page)
    return re.sub(r"(?<=\])\((?!\w+:|#)", f"({repository}/blob/{tag}/", page)


if __name__ == "__main__":
    repository, site, tag = sys.argv[1:]
    project, page = Path("pyproject.toml"), Path("README.md")
    project.write_text(with_urls(project.read_text(encoding="utf-8"), repository, site, tag), encoding="utf-8")
    page.write_text(with_whole_links(page.read_text(encoding="utf-8"), repository, tag), encoding="utf-8")
