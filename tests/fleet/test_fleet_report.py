"""The report: thumbnails inside, everything escaped, nothing fetched."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

from fleet_samples import png_with

from fleet import report
from fleet.index import Index, Result

EVIL = '<script>alert("1")</script>\x00 & <img src=http://a/>'


class Tags(HTMLParser):
    """What a browser would see: tags with their attributes, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def _written(folder: Path, *results: Result, to: Path | None = None) -> Tags:
    index = Index(folder)
    for result in results:
        index.put(result)
    path = to or folder / "report.html"
    report.write(index, path)
    index.close()
    return Tags(path.read_text())


def test_thumbnails_and_failures(tmp_path: Path) -> None:
    (tmp_path / "a b#?.png").write_bytes(png_with("", (400, 300)))
    done = Result("d" * 64, "done", 1.25, 400, 300, 7, "http://a:1", None, "a b#?.png", "line 1")
    page = _written(tmp_path, done, Result("f" * 64, "failed", error="HTTP 500", source="line 2"))
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert [str(image["src"])[:23] for image in images] == ["data:image/jpeg;base64,"]
    assert [a["href"] for tag, a in page.tags if tag == "a"] == ["./a%20b%23%3F.png"]
    assert "1 of 2 pictures" in page.text
    assert page.text.index("HTTP 500") < page.text.index("400 x 300")


def test_hostile_words_stay_words(tmp_path: Path) -> None:
    hostile = Result(EVIL, "failed", webui=EVIL, error=EVIL, source=EVIL + "\udcff", path=None)
    page = _written(tmp_path, hostile, Result("x", "done", path=EVIL, source='" onload="x'))
    assert not {tag for tag, _ in page.tags} & {"script", "img", "a", "b"}
    assert page.text.count("<script>alert") >= 4
    assert all(not name.startswith("on") for _, attributes in page.tags for name in attributes)


def test_nothing_is_fetched_and_nothing_runs(tmp_path: Path) -> None:
    page = _written(tmp_path)
    policy = next(a for tag, a in page.tags if tag == "meta" and "http-equiv" in a)
    assert str(policy["content"]).startswith("default-src 'none'")


def test_what_is_gone_or_leads_out_is_said(tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    out.mkdir()
    elsewhere.mkdir()
    (elsewhere / "x.png").write_bytes(png_with(""))
    (out / "link").symlink_to(elsewhere)
    page = _written(out, Result("a", "done", path="gone.png"), Result("b", "done", path="link/x.png"))
    assert "gone.png is gone" in page.text
    assert not [tag for tag, _ in page.tags if tag == "img"]


def test_a_report_elsewhere_has_no_links_into_the_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "x.png").write_bytes(png_with(""))
    (tmp_path / "other").mkdir()
    page = _written(out, Result("a", "done", path="x.png"), to=tmp_path / "other" / "r.html")
    assert [tag for tag, _ in page.tags if tag in ("a", "img")] == ["img"]
