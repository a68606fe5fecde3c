from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from tagseg.errors import ShapeError
from tagseg.report.figures import colour_map, overlay
from tagseg.report.page import (
    AverageLocation,
    ConfigRow,
    Curve,
    ForegroundIou,
    GalleryItem,
    RoundRow,
    RunReport,
    SeedScore,
    StageScore,
    TagScore,
    TrimapScore,
    TrustRow,
    WrongTagRow,
    WrongTags,
    render,
)

CLASSES = ("boat", "cat", "dog", "horse", "house", "kite", "lamp", "tree")
VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """Tags with their attributes, and a check that each is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def scene(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Photo, labels and score map of two blobs before a gradient."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:96, :128] / 96
    photo = np.stack([90 + 80 * y, 130 + 40 * x, 190 - 60 * y], -1)
    photo += rng.normal(0, 6, (96, 128, 1))
    labels, score = np.zeros((96, 128), np.uint8), np.zeros((96, 128))
    for label in rng.choice(np.arange(1, 9), 2, replace=False):
        cy, cx, radius = rng.uniform(0.25, 0.75), rng.uniform(0.3, 1.0), rng.uniform(0.12, 0.3)
        distance = np.hypot(y - cy, x - cx) / radius
        inside = distance < 1
        photo[inside] = rng.integers(40, 230, 3) + rng.normal(0, 14, (inside.sum(), 3))
        labels[inside] = label
        labels[(distance >= 1) & (distance < 1.12)] = 255
        score = np.maximum(score, np.exp(-(distance**2)))
    return photo.clip(0, 255).astype(np.uint8), labels, score.astype(np.float32)


def item(seed: int, rank, score: float) -> GalleryItem:
    photo, labels, heat = scene(seed)
    shifted = np.roll(labels, 7, axis=1)
    names = ", ".join(CLASSES[label - 1] for label in np.unique(labels) if 0 < label < 255)
    panels = (
        (f"scores: {names}", colour_map(heat, photo)),
        ("foreground P_f", colour_map(np.sqrt(heat), photo)),
        ("pseudo-label", overlay(photo, shifted)),
        ("prediction", overlay(photo, np.where(shifted == 255, 0, shifted).astype(np.uint8))),
        ("ground truth", overlay(photo, labels)),
    )
    return GalleryItem(f"scene_{seed:05}", "val", rank, score, photo, panels)


def seed_score(name: str, quality: float) -> SeedScore:
    """A made-up method; the curve has holes at both ends."""
    tau = np.arange(1, 1001) / 1000
    foreground = 0.9 * (1 - tau) ** (1 / quality), quality + (0.97 - quality) * tau
    background = tau ** (1 - quality), 0.98 - 0.28 * (1 - quality) * tau
    precision = [None, *foreground[1][1:-1], float("nan")]
    return SeedScore(
        name,
        "val",
        300,
        *(quality + 0.1, quality + 0.05, quality + 0.15),
        miou=quality - 0.2,
        threshold=0.2,
        foreground=Curve(foreground[0].tolist(), precision),
        background=Curve(*(values.tolist() for values in background)),
    )


def trimap_score(name: str, quality: float) -> TrimapScore:
    widths = list(range(1, 41))
    accuracy = [quality + 0.3 * (1 - np.exp(-width / 12)) for width in widths]
    return TrimapScore(name, "val", 300, widths, [None, *accuracy[1:]])


TRUST = [
    TrustRow("boat", 1200, 0.31, 0.0, 0.5, ("its masks are large", "nobody can tell it")),
    TrustRow("cat", 3, None, None, None, ("only 3 photos",)),
    *(TrustRow(name, 40, 0.724, 0.6, 0.808) for name in CLASSES[2:]),
]


METHODS = ("CAM", "back-propagation", "guided", "excitation", "DCSM", "DCSM + CRF", "centre mean")


def rounds(count: int) -> list[RoundRow]:
    """Made-up rounds; only the first has a supplement."""
    return [
        RoundRow(
            number,
            None if number == 1 else 0.97 - 0.3 / number,
            (
                ("RegionNet", "train", 0.59 - 0.3 / number),
                *((("supplement", "train", 0.35),) if number == 1 else ()),
                ("PixelNet", "train", 0.65 - 0.17 / number),
                ("PixelNet", "val", 0.60 - 0.14 / number),
            ),
        )
        for number in range(1, count + 1)
    ]


def demo() -> RunReport:
    """A made-up run with everything a report can show."""
    rng = np.random.default_rng(3)
    counts = rng.integers(0, 3000, (9, 10)) + np.eye(9, 10, dtype=int) * 40_000
    counts[6], counts[:, 6] = 0, 0
    iou = [0.88, *rng.uniform(0.3, 0.75, 8)]
    iou[6] = float("nan")
    stages = ["CAM seeds", "masks before CRF", "masks after CRF"]
    steps = np.arange(0, 3000, 4)
    curves = [
        {
            "iteration": int(t),
            "loss": float(2 * np.exp(-t / 900) + rng.gamma(2, 0.1)),
            "learning_rate": lr,
        }
        for t, lr in zip(steps, 0.01 * (1 - steps / 3000) ** 0.9, strict=True)
    ]
    ranks = ("best", "median", "worst")
    return RunReport(
        title="scenes, seed 0",
        recipe="builtin_priors",
        classes=CLASSES,
        paper="Saleh et al., Incorporating Network Built-in Priors, 2017",
        command="tagseg train scenes --tags scenes/tags.csv --recipe builtin_priors --out "
        "runs/demo --ground-truth scenes/SegmentationClass --seed 0",
        created="2026-11-21 14:03",
        settings={"backbone": "tiny", "device": "cpu", "precision": "bf16", "seed": 0},
        config=[
            ConfigRow("binary_threshold", 0.2, "3.1.2, B_c at 20 % of the maximum"),
            ConfigRow("alpha", 0.5, "Eq. 3"),
            ConfigRow("learning_rate", 1e-3, "4.2.2"),
        ],
        data=["2,000 photos for training, 300 for validation, 8 classes", "0 skipped"],
        stages=[("classifier", 61.2), ("masks", 33.9), ("segmenter", 151.0), ("predict", 12.0)],
        scores=[
            *(StageScore(name, "train", 0.4 + i / 20, iou, 2000) for i, name in enumerate(stages)),
            StageScore("segmenter", "val", 0.579, iou, 300, "without tags"),
            StageScore("segmenter + CRF", "val", 0.602, iou, 300, "without tags"),
        ],
        full_supervision_miou=0.78,
        confusion=counts,
        confusion_of="segmenter + CRF on val",
        curves={"classifier": curves[:300], "segmenter": curves},
        classifier_map=TagScore("val", 0.963, [0.97] * 7 + [None], 300),
        seeds=[seed_score(name, 0.7 - i / 20) for i, name in enumerate(METHODS)],
        trimap=[trimap_score(name, 0.6 - i / 20) for i, name in enumerate(METHODS[:4])],
        rounds=rounds(5),
        rounds_note="Round 5 was the last that the recipe allows.",
        gallery=[item(3 * r + i, ranks[r], 0.9 - r / 3) for r in range(3) for i in range(3)],
        notes=["This run is made up."],
        trust=TRUST,
    )


@pytest.fixture(scope="module")
def page() -> str:
    return render(demo())


def test_the_page_needs_nothing_but_itself(page) -> None:
    parsed = Page(page)
    assert not parsed.all("link")
    assert not parsed.all("script")
    assert all(img["src"].startswith("data:image/webp;base64,") for img in parsed.all("img"))
    assert "http:" not in page
    assert "https:" not in page
    assert "@import" not in page
    assert "url(" not in page


def test_every_stage_and_the_share_of_full_supervision(page) -> None:
    text = " ".join(re.sub(r"<[^>]+>", " ", page).split())
    for words in ("CAM seeds train 40.0", "segmenter + CRF val 60.2 77.2 300 without tags"):
        assert words in text
    assert "CAM seeds train 40.0 – 2,000" in text, "no share of a score on another split"
    assert "reaches 78.0 % mIoU on val" in text
    assert "60.2 % segmenter + CRF, val, 300 photos" in text
    assert "4 min 18 s" in text


def test_an_undefined_iou_is_a_dash_with_its_reason(page) -> None:
    row = re.search(r"<th scope=\"row\"><span[^>]*></span>kite</th>.*?</tr>", page)
    assert row is not None
    assert row.group().count("–</td>") == 5
    assert "nan" not in re.sub(r"base64,[^\"]*", "", page).lower().split()
    assert "in neither the ground truth nor the masks of these photos" in page
    assert "no photo of the split has the tag" in page


def test_the_confusion_rows_are_shares_of_the_true_class() -> None:
    counts = np.array([[90, 10, 0, 0], [0, 199, 1, 0], [0, 0, 0, 0]])
    report = RunReport("t", "r", ("a", "b"), confusion=counts, confusion_of="x")
    text = render(report)
    cells = [
        [re.sub(r"<[^>]+>", "", cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", row)]
        for row in re.findall(r"<tr><th scope=\"row\">.*?</tr>", text)
    ]
    assert cells == [
        ["90", "10", "·", "·", "100"],
        ["·", "100", "&lt;1", "·", "200"],
        ["–", "–", "–", "–", "0"],
    ]
    assert "unlabelled (255)" in text
    assert "unlabelled (255)" not in render(replace(report, confusion=counts[:, :3]))


def test_pictures_tables_and_charts_can_be_read_aloud(page) -> None:
    parsed = Page(page)
    images = parsed.all("img")
    assert len(images) == 9 * 6
    assert all(img["alt"] and int(img["width"]) <= 240 for img in images)
    assert images[0]["alt"] == "photo of scene_00000"
    assert all(th.get("scope") in {"col", "row"} for th in parsed.all("th"))
    drawings = [svg for svg in parsed.all("svg") if svg.get("aria-hidden") != "true"]
    assert len(drawings) == 4 + 4
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in drawings)
    assert parsed.all("html")[0]["lang"] == "en"
    ids = [attrs["id"] for _, attrs in parsed.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {
        attrs["aria-labelledby"] for _, attrs in parsed.tags if "aria-labelledby" in attrs
    } <= set(ids)
    links = [a["href"] for a in parsed.all("a")]
    assert {link.removeprefix("#") for link in links} <= set(ids)


def test_ranks_come_in_order(page) -> None:
    headings = re.findall(r"<h3>(\w+) photos</h3>", page)
    assert headings == ["Best", "Median", "Worst"]


def test_the_methods_of_the_seeds_stand_in_a_table_and_in_two_charts(page) -> None:
    section = page[page.index('<section id="seeds"') : page.index('<section id="boundaries"')]
    text = " ".join(re.sub(r"<[^>]+>", " ", section).split())
    assert "CAM val 80.0 75.0 85.0 50.0 0.2 300" in text
    parsed = Page(section)
    first, second = (svg for svg in parsed.all("svg") if "role" in svg)
    assert "at 20% recall: CAM 75.0, back-propagation 70.0," in first["aria-label"]
    assert "at 80% recall: CAM 85.0, back-propagation 80.0," in second["aria-label"]
    lines = parsed.all("polyline")
    assert [line["class"] for line in lines] == [f"line style-{i}" for i in range(7)] * 2
    assert "nan" not in "".join(line["points"] for line in lines)
    assert section.count("</svg>guided</li>") == 2, "in both legends"
    assert '<a href="#seeds">' in page


def test_the_accuracy_near_boundaries_is_a_chart(page) -> None:
    section = page[page.index('<section id="boundaries"') : page.index('<section id="confusion"')]
    (chart,) = (svg for svg in Page(section).all("svg") if "role" in svg)
    assert "CAM – within 1 pixels and 88.9 within 40; back-propagation" in chart["aria-label"]
    assert len(Page(section).all("polyline")) == 4
    assert '<a href="#boundaries">' in page


def test_lines_of_several_splits_say_which() -> None:
    seeds = [seed_score("CAM", 0.5), replace(seed_score("CAM", 0.6), split="train")]
    text = render(RunReport("t", "r", CLASSES, seeds=seeds))
    assert "</svg>CAM, val</li>" in text
    assert "</svg>CAM, train</li>" in text


def test_seeds_without_curves_and_scores_that_are_not_defined() -> None:
    seeds = [SeedScore("CAM", "val", 3, None, float("nan"), 0.9)]
    trimap = [TrimapScore("CAM", "val", 3, [1, 2], [None, None])]
    text = render(RunReport("t", "r", CLASSES, seeds=seeds, trimap=trimap))
    words = " ".join(re.sub(r"<[^>]+>", " ", text).split())
    assert "CAM val – – 90.0 – – 3" in words
    assert "never reaches the recall" in words
    assert "upright lines" not in words
    assert "Too few widths with pixels to draw." in words
    assert not Page(text).all("svg")


def rounds_section(rows: list[RoundRow], note: str = "") -> str:
    text = render(RunReport("t", "r", CLASSES, rounds=rows, rounds_note=note))
    return text[text.index('<section id="rounds"') : text.index('<section id="run"')]


def words_of(html: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", html).split())


def test_rounds_stand_in_a_table_by_stage_and_split(page) -> None:
    section = page[page.index('<section id="rounds"') : page.index('<section id="classes"')]
    text = words_of(section)
    assert (
        "Round RegionNet mIoU, train supplement mIoU, train PixelNet mIoU, train "
        "PixelNet mIoU, val Agreement with the round before "
        "1 29.0 35.0 48.0 46.0 – 2 44.0 – 56.5 53.0 82.0 3 49.0 –"
    ) in text
    assert "Round 5 was the last that the recipe allows." in text
    assert '<a href="#rounds">' in page


def test_the_chart_of_rounds_has_a_line_per_stage_and_split_and_agreement_last() -> None:
    parsed = Page(rounds_section(rounds(3)))
    (chart,) = (svg for svg in parsed.all("svg") if "role" in svg)
    assert "RegionNet, train 29.0 in round 1 and 49.0 in round 3; supplement" in chart["aria-label"]
    assert chart["aria-label"].endswith("agreement 82.0 in round 2 and 87.0 in round 3")
    points = [len(line["points"].split()) for line in parsed.all("polyline")]
    assert points == [3, 1, 3, 3, 2]
    dots = [dot["class"] for dot in parsed.all("circle")]
    assert len(dots) == sum(points) + 5, "one per point, one in each key"
    assert dots.count("dot style-1") == 1 + 1, "the supplement's only round can be seen"


def test_rounds_without_ground_truth_have_agreement_alone() -> None:
    unknown = [
        row._replace(scores=tuple((stage, split, None) for stage, split, _ in row.scores))
        for row in rounds(4)
    ]
    none = [row._replace(scores=()) for row in unknown]
    section = rounds_section(unknown)
    assert section == rounds_section(none)
    text = words_of(section)
    assert "Round Agreement with the round before 1 – 2 82.0 3 87.0 4 89.5 Agreement (%)" in text
    assert "mIoU" not in text
    (line,) = Page(section).all("polyline")
    assert len(line["points"].split()) == 3
    assert re.findall(r'text-anchor="middle">(\w+)<', section) == ["1", "2", "3", "4", "round"]


def test_a_score_known_in_some_rounds_only_keeps_its_column() -> None:
    rows = [RoundRow(i, None, (("a", "val", 0.5 if i == 2 else None),)) for i in (1, 2, 3)]
    assert "a mIoU, val Agreement with the round before 1 – – 2 50.0 – 3 – –" in words_of(
        rounds_section(rows)
    )


@pytest.mark.parametrize("scores", [(), (("RegionNet", "train", 0.29),)])
def test_one_round_is_a_table_without_a_chart(scores) -> None:
    section = rounds_section([RoundRow(1, None, scores)], "One round was asked for.")
    assert not Page(section).all("svg")
    assert "One round was asked for." in section


def test_without_rounds_there_is_no_section() -> None:
    text = render(RunReport("t", "r", CLASSES, rounds_note="Stopped."))
    assert 'id="rounds"' not in text
    assert "#rounds" not in text
    assert "Stopped." not in text


def test_tags_that_are_probably_wrong_have_a_section() -> None:
    rows = (WrongTagRow("a & b", "cat", "missing", 0.987), WrongTagRow("c", "boat", "wrong", 0.5))
    told = WrongTags("12 are probably missing and 3 wrong, in 9 photos", rows, "wrong_tags.csv")
    text = render(RunReport("t", "r", CLASSES, wrong_tags=told))
    assert '<a href="#tags">' in text
    section = text[text.index('<section id="tags"') : text.rindex("<section ")]
    assert "12 are probably missing and 3 wrong, in 9 photos" in section
    assert "<code>wrong_tags.csv</code>" in section
    row = '<th scope="row">a &amp; b</th><td>cat</td><td>missing</td><td class="n">99</td>'
    assert row in section
    assert 'id="tags"' not in render(RunReport("t", "r", CLASSES))
    none = WrongTags("0 are probably missing and 0 wrong, in 0 photos", (), "wrong_tags.csv")
    assert (
        "<table"
        not in render(RunReport("t", "r", CLASSES, wrong_tags=none))
        .split('id="tags"')[1]
        .split("</section>")[0]
    )


def trust_of(*scores: StageScore) -> str:
    text = render(RunReport("t", "r", CLASSES, scores=scores, trust=TRUST))
    return text[text.index('<section id="trust"') : text.rindex("<section ")]


def test_what_masks_can_be_trusted_stands_in_a_table(page) -> None:
    assert '<a href="#trust">' in page
    section = trust_of()
    text = words_of(section)
    assert "How far to trust the masks" in text
    assert "estimated from tags alone, and no ground truth was used" in text
    assert (
        "Class Photos Expected IoU Range Why not "
        "boat 1,200 31 0 to 50 its masks are large nobody can tell it "
        "cat 3 – – only 3 photos dog 40 72 60 to 81 horse 40 72 60 to 81"
    ) in text
    assert "Measured" not in text


def test_what_was_measured_of_the_photos_masks_stands_beside_what_is_expected() -> None:
    def score(id: str, split: str, iou: float, number: int | None = None) -> StageScore:
        by_label = [0.99, *(iou + i / 100 for i in range(7)), None]
        return StageScore("masks", split, 0.5, by_label, 9, id=id, number=number)

    first, last = score("masks", "train", 0.1, 1), score("masks", "train", 0.4, 2)
    others = score("seeds", "train", 0.7), score("masks", "val", 0.8)
    text = words_of(trust_of(first, last, *others))
    assert "Range Measured IoU Why not boat 1,200 31 0 to 50 40.0 its masks" in text
    assert "cat 3 – – 41.0 only 3 photos dog 40 72 60 to 81 42.0 horse" in text
    assert "tree 40 72 60 to 81 – A class" in text
    assert "Measured" not in trust_of(*others)
    foreground = StageScore("masks", "train", 0.5, None, 9, id="masks")
    assert "Measured" not in trust_of(foreground)


def test_without_a_word_on_trust_there_is_no_section() -> None:
    assert 'id="trust"' not in render(RunReport("t", "r", CLASSES))


def foreground_score(
    stage: str, split: str, iou: list[float | None], photos: list[int]
) -> StageScore:
    found = [ForegroundIou(*row) for row in zip(OBJECTS, iou, photos, strict=True)]
    known = [value for value in iou if value is not None]
    average = sum(known) / len(known) if known else None
    note = "foreground against background"
    return StageScore(stage, split, 0.8, None, sum(photos), note, found, average)


OBJECTS = ("Airplane", "Car", "Horse")
FOREGROUND = [
    foreground_score("coarse masks", "train", [0.51, 0.62, 0.44], [388, 1119, 717]),
    foreground_score("segmenter, round 1", "val", [0.649, 0.776, 0.6036], [82, 89, 93]),
    foreground_score("masks, round 1", "train", [0.61, 0.7, 0.5], [388, 1119, 717]),
    foreground_score("segmenter, round 2", "val", [0.7, 0.8, 0.5], [82, 89, 93]),
]


def foreground_of(scores: list[StageScore]) -> str:
    text = render(RunReport("t", "r", OBJECTS, scores=scores))
    return text[text.index('<section id="foreground"') : text.index('<section id="run"')]


def test_foreground_stands_in_a_table_by_split_and_class() -> None:
    section = foreground_of(FOREGROUND)
    assert "Foreground, IoU per class (Jing et al., Table IV)" in section
    assert (
        "Stage Split Airplane Car Horse Average "
        "Number of photos train 388 1,119 717 coarse masks train 51.0 62.0 44.0 52.3 "
        "masks, round 1 train 61.0 70.0 50.0 60.3 "
        "Number of photos val 82 89 93 segmenter, round 1 val 64.9 77.6 60.4 67.6 "
        "segmenter, round 2 val 70.0 80.0 50.0 66.7"
    ) in words_of(section)
    assert Page(section).all("section")[0].get("class") is None
    assert "no photo of the split" not in section


def test_what_a_person_did_stands_with_the_scores() -> None:
    told = "2 training photos were looked at; <b>masks</b>: 1 right."
    text = render(RunReport("t", "r", CLASSES, review=told))
    assert "Reviewed by a person: 2 training photos were looked at; &lt;b&gt;masks" in words_of(
        text
    )
    assert "<b>masks</b>" not in text
    assert "Reviewed by a person" not in words_of(render(RunReport("t", "r", CLASSES)))


def test_a_class_that_no_photo_shows_is_a_dash_with_its_reason() -> None:
    section = foreground_of([foreground_score("s", "val", [0.5, None, 0.7], [3, 0, 4])])
    assert "Number of photos val 3 0 4 s val 50.0 – 70.0 60.0" in words_of(section)
    assert "no photo of the split shows the class" in section


def test_a_report_of_foreground_alone_has_no_classes() -> None:
    report = RunReport("t", "r", OBJECTS, scores=FOREGROUND, full_supervision_miou=0.9)
    text = render(report)
    assert {attrs["id"] for attrs in Page(text).all("section")} == {"quality", "foreground", "run"}
    words = words_of(text)
    assert "mIoU of foreground and background 80.0 % segmenter, round 2, val, 264 photos" in words
    assert "foreground IoU 66.7 % segmenter, round 2, val, mean of the classes" in words
    assert "full supervision" not in words, "that knows classes"


def test_without_foreground_scores_there_is_no_table_of_them(page) -> None:
    assert "Table IV" not in page
    unknown = foreground_score("s", "val", [None, None, None], [0, 0, 0])
    assert 'id="foreground"' not in render(RunReport("t", "r", OBJECTS, scores=[unknown]))


def test_the_gallery_says_what_its_scores_and_colours_are() -> None:
    photo = np.zeros((4, 4, 3), np.uint8)
    shown = GalleryItem("p", "val", "best", 0.75, photo, (), "foreground IoU", True)
    text = render(RunReport("t", "r", OBJECTS, gallery=[shown]))
    assert "foreground IoU 75.0 %" in words_of(text)
    assert '<span class="swatch" style="background:#ff3caa"></span>foreground of any class' in text
    plain = render(RunReport("t", "r", OBJECTS, gallery=[replace(shown, foreground=False)]))
    assert "of any class" not in plain


@pytest.mark.parametrize(
    ("panels", "style"),
    [
        (0, '<div class="pictures" style="--n:1">'),
        (8, '<div class="pictures" style="--n:9">'),
        (9, '<div class="pictures many" style="--n:5;--middling:5">'),
        (14, '<div class="pictures many" style="--n:8;--middling:5">'),
        (15, '<div class="pictures many" style="--n:8;--middling:4">'),
        (23, '<div class="pictures many" style="--n:8;--middling:5">'),
    ],
)
def test_many_pictures_stand_in_even_rows_in_reading_order(panels: int, style: str) -> None:
    photo = np.zeros((4, 6, 3), np.uint8)
    titles = [f"panel {i}" for i in range(panels)]
    gallery = [GalleryItem("p", "train", "best", 1.0, photo, tuple((t, photo) for t in titles))]
    text = render(RunReport("t", "r", CLASSES, gallery=gallery))
    assert style in text
    assert re.findall(r"<figcaption>(.*?)</figcaption>", text) == ["photo", *titles]


@pytest.mark.parametrize(("columns", "dense"), [(7, False), (8, True)])
def test_a_wide_table_of_classes_is_dense(columns: int, dense: bool) -> None:
    scores = [StageScore(f"s{i}", "train", 0.5, [0.5] * 9, 1) for i in range(columns)]
    sections = Page(render(RunReport("t", "r", CLASSES, scores=scores))).all("section")
    (classes,) = (attrs for attrs in sections if attrs["id"] == "classes")
    assert (classes.get("class") == "dense") == dense


def test_the_same_report_is_the_same_page(page) -> None:
    assert render(demo()) == page


EVIL = "<script>alert('x')</script>\" onload=\"y"


def test_every_text_is_escaped() -> None:
    photo = np.zeros((4, 4, 3), np.uint8)
    records = [{"iteration": i, EVIL: 1.0} for i in range(3)]
    report = RunReport(
        title=EVIL,
        recipe=EVIL,
        classes=(EVIL,),
        paper=EVIL,
        command=EVIL,
        created=EVIL,
        settings={EVIL: EVIL},
        config=[ConfigRow(EVIL, EVIL, EVIL)],
        data=[EVIL],
        stages=[(EVIL, 1.0)],
        scores=[StageScore(EVIL, EVIL, 0.5, [0.5, 0.5], 1, EVIL)],
        full_supervision_miou=0.6,
        full_supervision_split=EVIL,
        confusion=np.eye(2, dtype=np.int64),
        confusion_of=EVIL,
        curves={EVIL: records},
        classifier_map=TagScore(EVIL, 0.5, [0.5], 1),
        seeds=[replace(seed_score(EVIL, 0.5), split=EVIL)],
        trimap=[replace(trimap_score(EVIL, 0.5), split=EVIL)],
        rounds=[RoundRow(i, 0.5, ((EVIL, EVIL, 0.5),)) for i in (1, 2)],
        rounds_note=EVIL,
        gallery=[GalleryItem(EVIL, EVIL, "sample", None, photo, ((EVIL, photo),))],
        notes=[EVIL],
        trust=[TrustRow(EVIL, 1, 0.5, 0.4, 0.6, (EVIL,))],
    )
    text = render(report)
    assert "&lt;script&gt;" in text
    parsed = Page(text)
    assert not parsed.all("script")
    assert not [attrs for _, attrs in parsed.tags if "onload" in attrs]


def test_without_ground_truth_the_page_says_so_and_leaves_the_rest_out() -> None:
    text = render(RunReport("t", "cam_baseline", CLASSES))
    assert "No ground truth was given: quality was not measured" in text
    assert {attrs["id"] for attrs in Page(text).all("section")} == {"quality", "run"}


def test_scores_that_were_not_measured() -> None:
    scores = [StageScore("segmenter", "val", None, None, 0, "val has no ground truth")]
    text = render(RunReport("t", "r", CLASSES, scores=scores, full_supervision_miou=float("nan")))
    assert "– : not measured" in text
    assert "full supervision" not in text
    assert 'class="tiles"' not in text


def test_size_is_bounded_for_24_photos_of_noise() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    panels = tuple((f"panel {i}", noise) for i in range(5))
    gallery = [GalleryItem(f"p{i}", "val", "sample", None, noise, panels) for i in range(24)]
    assert len(render(RunReport("t", "r", CLASSES, gallery=gallery))) < 8e6


@pytest.mark.parametrize(
    "change",
    [
        {"scores": [StageScore("s", "val", 0.5, [0.5] * 8, 1)]},
        {"scores": FOREGROUND},
        {"confusion": np.zeros((9, 11), np.int64)},
        {"classifier_map": TagScore("val", 0.5, [0.5] * 9, 1)},
        {"seeds": [replace(seed_score("s", 0.5), foreground=Curve([0.1, 0.2], [0.1]))]},
        {"trimap": [TrimapScore("s", "val", 1, [1, 2], [0.5])]},
        {"rounds": [RoundRow(2, None), RoundRow(2, 0.5)]},
        {"rounds": [RoundRow(1, None, (("s", "val", 0.5), ("s", "val", 0.6)))]},
        {"trust": TRUST[1:]},
        {"gallery": [GalleryItem("p", "val", "best", 1.0, np.zeros((4, 4), np.uint8), ())]},
    ],
)
def test_what_does_not_fit_is_refused(change) -> None:
    with pytest.raises(ShapeError):
        render(replace(demo(), **change))


def test_average_locations_are_of_classes_with_photos() -> None:
    maps = np.linspace(0, 0.5, len(CLASSES) * 16).reshape(len(CLASSES), 4, 4)
    photos = [3, 0, *[1] * (len(CLASSES) - 2)]
    text = render(RunReport("t", "r", CLASSES, locations=[AverageLocation(EVIL, maps, photos)]))
    page = Page(text)
    pictures = [image for image in page.all("img") if "average of" in str(image["alt"])]
    assert len(pictures) == len(CLASSES) - 1
    assert f"{maps[0].max():.2f}, 3 photos" in text
    assert 'href="#locations"' in text
    assert EVIL not in text
    short = AverageLocation("m", maps[1:], photos[1:])
    with pytest.raises(ShapeError, match="7 average maps for 8 classes"):
        render(RunReport("t", "r", CLASSES, locations=[short]))
