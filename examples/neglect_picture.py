"""Draw what each method gives two answers of equal mean reward, one of which fails a criterion: docs/neglect.svg.

    python examples/neglect_picture.py --out docs/neglect.svg

A group of eight answers is graded on three easy criteria and a hard one that five of them fail. Answer A is best
on the easy ones and fails the hard one; answer B is middling on all four; both have the mean 0.60.
"""

import argparse
from pathlib import Path

import numpy as np

from rvpo import compute_advantages

GROUP = np.asarray(
    [
        [0.8, 0.8, 0.8, 0.0],  # answer A
        [0.6, 0.6, 0.6, 0.6],  # answer B
        [0.7, 0.5, 0.8, 0.0],
        [0.5, 0.8, 0.6, 0.0],
        [0.6, 0.7, 0.5, 0.5],
        [0.8, 0.6, 0.7, 0.0],
        [0.5, 0.5, 0.5, 0.7],
        [0.7, 0.6, 0.6, 0.0],
    ]
)
METHODS = [
    ("GRPO", {"method": "grpo"}),
    ("GDPO", {"method": "gdpo"}),
    ("RVPO, k = 2", {"method": "rvpo", "k": 2.0}),
    ("policy level, k = 4", {"method": "rvpo_policy", "k": 4.0}),
]
STYLE = """
text { font: 14px system-ui, sans-serif; fill: #1f2328 } .small { font-size: 12px } .bold { font-weight: 600 }
.a { fill: #d1622b } .b { fill: #2b6cb0 } .axis { stroke: #8b949e } .ground { fill: #ffffff }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .ground { fill: #0d1117 }
.a { fill: #f0883e } .b { fill: #58a6ff } }
"""


def bar(x: float, value: float, kind: str) -> str:
    """Return a bar from the zero line at y = 190, 46 pixels a unit, with its value."""
    height = abs(value) * 46
    y = 190 - max(value, 0) * 46
    label_y = y - 6 if value >= 0 else y + height + 15
    return (
        f'<rect class="{kind}" x="{x}" y="{y:.1f}" width="46" height="{max(height, 1):.1f}" rx="2"/>'
        f'<text class="small" x="{x + 23}" y="{label_y:.1f}" text-anchor="middle">{value:+.2f}</text>'
    )


def picture() -> str:
    """Return the picture as SVG."""
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 270" role="img" '
        'aria-label="Advantage of two answers of equal mean reward under four methods">',
        f"<style>{STYLE}</style>",
        '<rect class="ground" width="760" height="270"/>',
        '<text class="bold" x="20" y="28">Two answers of mean reward 0.60: which one does the policy learn?</text>',
        '<rect class="a" x="20" y="44" width="12" height="12"/>',
        '<text class="small" x="38" y="55">A: easy criteria 0.8, 0.8, 0.8, hard one 0.0</text>',
        '<rect class="b" x="330" y="44" width="12" height="12"/>',
        '<text class="small" x="348" y="55">B: all four 0.6</text>',
        '<line class="axis" x1="20" y1="190" x2="740" y2="190"/>',
    ]
    for index, (name, options) in enumerate(METHODS):
        advantages = compute_advantages(GROUP[None], **options).advantages[0]
        x = 50 + 180 * index
        parts += [bar(x, float(advantages[0]), "a"), bar(x + 54, float(advantages[1]), "b")]
        parts.append(f'<text x="{x + 50}" y="252" text-anchor="middle">{name}</text>')
    return "\n".join([*parts, "</svg>\n"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/neglect.svg"))
    options = parser.parse_args()
    options.out.write_text(picture(), encoding="utf-8")
    print(f"picture: {options.out}")


if __name__ == "__main__":
    main()
