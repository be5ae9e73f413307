"""Make the pictures of docs/how-to/use-the-browser-client.md: a hub with a few notes, looked at in Chromium.

    python scripts/picture_the_hub.py FOLDER

It needs what the tests of the hub need. The answer is scripted, so that the pictures stay the same. Those in the docs
were packed afterwards, with 128 colours.
"""

import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "hub")]

from hub_page import Page, looked_at  # noqa: E402
from scripted import scripted  # noqa: E402

NOTES = {
    "garden.md": "# The garden\n\nThe roses are watered on Mondays and Thursdays, before nine in the morning.\n\n"
    "The lawn is cut every second week, and never in a drought.\n\n## Tools\n\nThe shears are in the shed behind the "
    "house. They are oiled in autumn.\n",
    "kitchen.md": "# The kitchen\n\nThe kettle is descaled with vinegar, one part to two parts of water.\n\nThe spare "
    "key lies under the blue pot.\n",
    "neighbours.txt": "Ana waters the roses while we are away. Her number is on the fridge.\n",
}
ANSWER = (
    "The roses are watered on **Mondays and Thursdays**, before nine in the morning [2].\n\n"
    "While you are away, Ana waters them [1]."
)


def main() -> None:
    """Make them."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as home, scripted() as server, Page(1280, 860) as page:
        notes = Path(home, "notes")
        notes.mkdir()
        for name, text in NOTES.items():
            (notes / name).write_text(text)
        server.says(ANSWER)
        with looked_at(page, Path(home), url=server.url) as (hub, _):
            hub.ask("POST", "/api/v1/projects", {"name": "House"})
            hub.ask("POST", "/api/v1/projects/1/directories", {"path": str(notes)})
            job = hub.ask("POST", "/api/v1/projects/1/sync").json()["id"]
            while hub.ask("GET", f"/api/v1/jobs/{job}").json()["finished_at"] is None:
                time.sleep(0.1)
            hub.ask("POST", "/api/v1/threads", {"title": "When are the roses watered?", "project": 1})
            hub.ask("POST", "/api/v1/threads/1/messages", {"content": "When are the roses watered?"})

            [_, said] = hub.ask("GET", "/api/v1/threads/1").json()["messages"]

            def picture(name: str, path: str, width: int, height: int, *, dark: bool = False) -> None:
                page.size(width, height)
                page.dark(dark)
                page.go(path)
                if "search" in name:
                    page.press("Why", "summary")
                if "graph" in name:  # from the answer to a place that it cites, and back
                    page.press("Ana waters", ".panel button")
                    page.sees("is part of", ".panel h3")
                    page.press("The roses are watered", ".panel button")
                    page.sees("cites", ".panel h3")
                time.sleep(2.5 if "graph" in name else 0.5)
                page.run("document.activeElement.blur(), scrollTo(0, 0)")
                (folder / f"use-the-browser-client-{name}.png").write_bytes(page.picture())

            picture("chat", "/chat/1", 1100, 660)
            picture("search", "/search?q=who+waters+the+roses&project=1", 1100, 680, dark=True)
            picture("graph", f"/graph?id={said['id']}", 1180, 820)
            picture("phone", "/chat/1", 390, 720)


if __name__ == "__main__":
    main()
