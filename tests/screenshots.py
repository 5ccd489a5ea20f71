"""Pictures of a lecture's pages at the widths of a phone, a laptop and a projector: python tests/screenshots.py FOLDER."""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

WIDTHS = {400: 800, 1280: 800, 1920: 1080}  # and heights


def main(folder: Path) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium") or shutil.which("google-chrome"), args=["--no-sandbox"]
        )
        for path in sorted(folder.glob("*.html")):
            for width, height in WIDTHS.items():
                for scheme in ("light", "dark"):
                    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
                    page.goto(path.resolve().as_uri())
                    page.screenshot(path=folder / "screenshots" / f"{path.stem}-{width}-{scheme}.png", full_page=True)
                    page.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
