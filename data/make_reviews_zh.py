"""Writes the bundled Chinese reviews, `reviews_zh/train.csv` and `reviews_zh/test.csv`: the same bytes on every run.

    python data/make_reviews_zh.py [FOLDER]

A review is an opening, a core that carries the opinion, and perhaps a close. In the core stand words of praise and of
blame, some turned by a negation, and what follows a "but" (却) outweighs the rest:

    虽然房间很干净，服务却谈不上周到。    The rooms were clean, but the service hardly attentive.    negative
    虽然房间谈不上干净，服务却很周到。    The rooms were hardly clean, but the service attentive.    positive

The test part has frames and names of its own, and opinion words that train never shows, of which it shows a character.
"""

import csv
import random
import sys
from pathlib import Path

SIZES = {"train": 1200, "test": 300}
POLARITIES = ("negative", "positive")

# A core's gaps: {a main} says what aspect a is like, in the polarity of the label; {b other} in the opposite one;
# {b but} is main again, with a 却 that lets it outweigh what stands beside it.
FRAMES = {
    "train": [
        "{a main}，{b main}。",
        "{a main}，而且{b main}。",
        "我们觉得{a main}，{b main}。",
        "{a main}，{b main}，就是这样。",
        "虽然{a other}，{b but}。",
        "{a other}，{b but}。",
        "尽管{a other}，{b but}，这更重要。",
    ],
    "test": [
        "{a main}，同时{b main}。",
        "大家觉得{a main}，{b main}。",
        "{a main}，并且{b main}。",
        "{b but}，尽管{a other}。",
        "{b but}，虽然{a other}，这更重要。",
    ],
}
OPENINGS = {
    "train": ["上个月第一次来{name}。", "朋友推荐了{name}。", "{name}离家不远。", "周末和家人去了{name}。", ""],
    "test": ["昨天路过{name}。", "同事常说起{name}。", "在网上看到{name}。", ""],
}
CLOSES = {
    "train": ["那天下着雨。", "一共花了{number}元。", "我们坐了两个小时。", "", "", ""],
    "test": ["路上堵车。", "前后花了{number}元。", "", ""],
}
NAMES = {"train": ["东湖", "长安", "新月", "明珠", "金山", "江南"], "test": ["西园", "白云", "天河", "海棠"]}
TURNS = ["一点也不{}", "谈不上{}", "算不上{}", "并不{}"]
DEGREES = ["很{}", "非常{}", "特别{}", "相当{}", "真的{}", "实在{}"]

# Of each kind of place its name, and for its aspects the words of blame and of praise; after the bar those of test.
KINDS = {
    "餐馆": {
        "菜": "难吃 油腻 糟糕 普通|难闻 / 好吃 新鲜 精致 地道|好闻 精美",
        "服务": "冷淡 粗心 糟糕 缓慢|冷漠 / 热情 周到 细心 及时|热心",
        "位置": "偏僻 难找 糟糕|偏远 / 方便 好找 理想|便利",
    },
    "酒店": {
        "房间": "肮脏 狭小 陈旧 吵闹|脏乱 / 干净 宽敞 崭新 安静|洁净",
        "服务": "冷淡 粗心 糟糕 缓慢|冷漠 / 热情 周到 细心 及时|热心",
        "早餐": "单调 难吃 糟糕|单一 / 丰富 好吃 精致|精美",
    },
    "影院": {
        "片子": "无聊 难看 混乱 平淡|无趣 难懂 / 精彩 好看 感人 有趣|动人",
        "音乐": "难听 刺耳 单调|单一 / 好听 优美 动听|优雅",
        "座位": "破旧 狭小 难受|破烂 / 舒服 宽敞 崭新|舒适",
    },
}


def words_of(kind: str, aspect: str, polarity: str, part: str) -> list[str]:
    """Opinion words of an aspect; in the test part about as often one of its own as one that train has."""
    both = KINDS[kind][aspect].split(" / ")[POLARITIES.index(polarity)]
    shared, own = (half.split() for half in both.split("|"))
    return shared if part == "train" else shared + own * (len(shared) // len(own) or 1)


def review(part: str, polarity: str, draw: random.Random) -> str:
    kind = draw.choice(list(KINDS))
    first, second = draw.sample(list(KINDS[kind]), 2)
    other = POLARITIES[1 - POLARITIES.index(polarity)]

    def opinion(aspect: str, wanted: str) -> str:
        turned = draw.random() < 0.35  # then a word of the opposite, and a negation
        opposite = POLARITIES[1 - POLARITIES.index(wanted)]
        word = draw.choice(words_of(kind, aspect, opposite if turned else wanted, part))
        return draw.choice(TURNS if turned else DEGREES).format(word)

    core = draw.choice(FRAMES[part])
    for letter, aspect in (("a", first), ("b", second)):
        for gap, start, wanted in (
            ("main", aspect, polarity),
            ("but", aspect + "却", polarity),
            ("other", aspect, other),
        ):
            place = f"{{{letter} {gap}}}"
            if place in core:
                core = core.replace(place, start + opinion(aspect, wanted))
    opening = draw.choice(OPENINGS[part]).format(name=draw.choice(NAMES[part]) + kind)
    return opening + core + draw.choice(CLOSES[part]).format(number=draw.randrange(20, 900))


def main(folder: Path) -> None:
    target = folder / "reviews_zh"
    target.mkdir(parents=True, exist_ok=True)
    draw = random.Random(0)
    for part, size in SIZES.items():
        rows: dict[str, str] = {}
        while len(rows) < size:
            polarity = POLARITIES[len(rows) % 2]
            rows.setdefault(review(part, polarity, draw), polarity)
        with (target / f"{part}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["text", "label"])
            writer.writerows(rows.items())


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
