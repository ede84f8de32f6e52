"""Every method against the true distribution: makes pictures, measures them, writes JSON, docs/quality.md and sheets.

Resumable: pictures and features are kept in --out and made once. Ctrl-C or a kill loses at most one picture.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks.quality import report, run, validity
from benchmarks.quality.methods import METHODS, find
from benchmarks.quality.sheets import write
from benchmarks.quality.summary import finished_tables, summarise, with_table

DOCS = run.REPOSITORY / "docs"
RESULT = run.REPOSITORY / "benchmarks" / "results" / "quality.json"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument(
        "--methods", help=f"comma-separated, in this order: {','.join(m.key for m in METHODS)}"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--least", type=int, default=64, help="rows with fewer prompts are left out")
    parser.add_argument("--out", type=Path, default=run.REPOSITORY / "outputs" / "quality")
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder of quality.md and images/")
    parser.add_argument("--json", type=Path, default=RESULT, help="the summary, written and rendered")
    parser.add_argument(
        "--add",
        metavar="TITLE",
        help="keep the JSON, but for this table; pictures of no other one are needed",
    )
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--make-only", action="store_true", help="make pictures and stop")
    only.add_argument(
        "--measure-only", action="store_true", help="make no pictures, use those that are there"
    )
    only.add_argument("--render-only", action="store_true", help="only render the page from the JSON")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    try:
        methods = find(args.methods)
    except ValueError as error:
        raise SystemExit(f"--methods: {error}") from error
    if not (args.measure_only or args.render_only):
        run.make(args.out, methods, args.prompts, args.workers)
    if args.make_only:
        return
    if args.add:
        found = finished_tables(args.out, [args.add], least=args.least, workers=args.workers)
        try:
            kept = with_table(json.loads(args.json.read_text()), found, args.add)
        except ValueError as error:
            raise SystemExit(f"--add: {error}") from error
        args.json.write_text(json.dumps(kept, indent=1) + "\n")
    elif not args.render_only:
        summary = summarise(args.out, least=args.least, workers=args.workers)
        summary["validity"] = validity.judge(args.out, summary["tables"])
        summary["sheets"] = write(args.out, args.docs / "images")
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(summary, indent=1) + "\n")
    summary = json.loads(args.json.read_text())
    (args.docs / "quality.md").write_text(report.render(summary, summary["sheets"]))
    print(args.docs / "quality.md")


if __name__ == "__main__":
    main()
