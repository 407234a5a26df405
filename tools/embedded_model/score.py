"""Paint held-out captions with a model, or take drawings or finished pictures, and count what is right."""

import argparse
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cases import Case, make_cases, make_edits
from painters import DiffusersPainter, Painter, ProjectPainter
from pictures import draw, random_jitter
from scorer import Verdict

SIZES = (
    "256:300",
    "192:120",
    "128:120",
    "384:120",
    "512:60",
    "320x192:120",
    "192x320:120",
    "160x112:120",
    "112x160:120",
    "64:120",
)
OTHERS = ("256:320", "192:160", "128:160")
EDITS = ("256:60", "128:120")
QUESTIONS = ("background", "colour", "shape", "place", "time", "ground")
Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Finding:
    """A verdict with the case that it belongs to."""

    case: Case
    verdict: Verdict


def parse_size(text: str) -> tuple[int, int]:
    """Width and height of "256" or "320x192"."""
    width, _, height = text.partition("x")
    return int(width), int(height or width)


def drawings(cases: Sequence[Case]) -> Iterator[Picture]:
    """The truth: what the grammar itself draws."""
    rng = np.random.default_rng(cases[0].order.seed)
    for case in cases:
        yield draw(case.scene, case.order.width, case.order.height, random_jitter(rng))


def reconstructions(pictures: Iterable[Picture], folder: Path) -> Iterator[Picture]:
    """Pictures through the checkpoint's VAE and back; prints how much of them is left."""
    import torch
    from diffusers import AutoencoderKLFlux2

    vae = AutoencoderKLFlux2.from_pretrained(folder / "vae", dtype=torch.float32)
    ratios = []
    for picture in pictures:
        image = torch.from_numpy(picture.transpose(2, 0, 1).copy()).float()[None] / 127.5 - 1
        with torch.no_grad():
            got = vae.decode(vae.encode(image).latent_dist.mean).sample.clamp(-1, 1)
        ratios.append(-10 * float(((got - image) / 2).square().mean().log10()))
        yield (got[0].permute(1, 2, 0).add(1).mul(127.5) + 0.5).byte().numpy()
    print(f"psnr {np.mean(ratios):.2f} dB, worst {min(ratios):.2f}")


def folder_pictures(folder: Path) -> Iterator[Picture]:
    """Pictures of the cases in the order of their names."""
    for path in sorted(folder.iterdir()):
        yield np.asarray(Image.open(path).convert("RGB"))


def load_painter(args: argparse.Namespace) -> Painter | None:
    """The model that paints; none for drawings and finished pictures."""
    if args.painter == "diffusers":
        return DiffusersPainter(Path(args.model), args.steps)
    return ProjectPainter(args.model, args.steps) if args.painter == "project" else None


def make_pictures(args: argparse.Namespace, painter: Painter | None, cases: Sequence[Case]) -> Iterable[Picture]:
    """The pictures to judge, from wherever the command line says."""
    if painter:
        return (np.asarray(image.convert("RGB")) for image in painter.paint([case.order for case in cases]))
    if args.painter == "folder":
        return folder_pictures(Path(args.model))
    return drawings(cases) if args.painter == "drawings" else reconstructions(drawings(cases), Path(args.model))


def judge_all(cases: Sequence[Case], pictures: Iterable[Picture], keep: Path | None = None) -> list[Finding]:
    """Every verdict with its case; pictures are kept in a folder when one is given."""
    findings = []
    for number, (picture, case) in enumerate(zip(pictures, cases, strict=False)):
        findings += [Finding(case, verdict) for verdict in case.judge(picture)]
        if keep:
            keep.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(keep / f"{number:04d}.png")
    return findings


def count_right(findings: Iterable[Finding]) -> dict[str, list[bool]]:
    """Right or wrong by question."""
    counts: dict[str, list[bool]] = defaultdict(list)
    for finding in findings:
        counts[finding.verdict.name].append(finding.verdict.right)
    return counts


def format_list(findings: Iterable[Finding]) -> str:
    """One line a question: how many of how many are right."""
    return "\n".join(
        f"{name:<11} {100 * np.mean(right):6.1f} %  ({sum(right)} of {len(right)})"
        for name, right in count_right(findings).items()
    )


def format_row(title: str, findings: Iterable[Finding], questions: Sequence[str]) -> str:
    """A row of a Markdown table, in per cent."""
    counts = count_right(findings)
    cells = (f"{100 * np.mean(counts[name]):.1f}" if name in counts else "" for name in questions)
    return f"| {title} | " + " | ".join(cells) + " |"


def print_table(args: argparse.Namespace, painter: Painter | None) -> None:
    """The whole table: sizes in the grammar's wordings, others' wordings by size and by way, and edits."""
    print(f"| size (captions) | {' | '.join(QUESTIONS)} |\n|{'---|' * (len(QUESTIONS) + 1)}", flush=True)
    by_way: dict[str, list[Finding]] = defaultdict(list)
    for wording, told in (("own", args.sizes), ("others", args.others)):
        for entry in told:
            size, _, count = entry.partition(":")
            cases = make_cases(wording, *parse_size(size), int(count), args.seed)
            findings = judge_all(cases, make_pictures(args, painter, cases))
            print(format_row(f"{size}, {wording} ({count})", findings, QUESTIONS), flush=True)
            for finding in findings if wording == "others" else ():
                by_way[finding.case.group].append(finding)
    for way, findings in by_way.items():
        print(format_row(f"others: {way}", findings, QUESTIONS), flush=True)
    print("\n| edits (requests) | asked for and there | not asked for and unchanged |\n|---|---|---|")
    for entry in args.edits:
        size, _, count = entry.partition(":")
        cases = make_edits(*parse_size(size), int(count), args.seed)
        findings = judge_all(cases, make_pictures(args, painter, cases))
        print(format_row(f"{size} ({count})", findings, ("asked", "stays")), flush=True)
        pairs = [finding for finding in findings if finding.case.group == "pair"]
        print(format_row(f"{size}, of them pairs", pairs, ("asked", "stays")), flush=True)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("painter", choices=("diffusers", "project", "drawings", "vae", "folder"))
    parser.add_argument("--model", default="flux2-tiny", help="checkpoint folder, model name or picture folder")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--size", default="256", help="256 or 320x192")
    parser.add_argument("--wording", choices=("own", "plain", "others"), default="own", help="whose words")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--keep", type=Path, help="folder for the pictures")
    parser.add_argument("--wrong", type=int, default=0, help="print this many wrong verdicts")
    parser.add_argument("--table", action="store_true", help="judge all sizes, others' wordings and edits")
    parser.add_argument("--sizes", nargs="*", default=SIZES, help="rows of the table, as 256:300 or 320x192:60")
    parser.add_argument("--others", nargs="*", default=OTHERS, help="rows in others' wordings")
    parser.add_argument("--edits", nargs="*", default=EDITS, help="rows of edits")
    return parser.parse_args()


def main() -> None:
    """Read the command line, paint, judge, print."""
    args = parse_arguments()
    painter = load_painter(args)
    if args.table:
        print_table(args, painter)
        return
    cases = make_cases(args.wording, *parse_size(args.size), args.count, args.seed)
    findings = judge_all(cases, make_pictures(args, painter, cases), args.keep)
    print(format_list(findings))
    for finding in [one for one in findings if not one.verdict.right][: args.wrong]:
        print(
            f"{finding.verdict.name}: wanted {finding.verdict.wanted}, seen {finding.verdict.seen}: "
            f"{finding.case.order.caption}"
        )


if __name__ == "__main__":
    main()
