"""Writes the bundled Chinese questions, `questions_zh/train.json` and `questions_zh/test.json`: the same bytes on every
run.

    python data/make_questions_zh.py [FOLDER]

A paragraph tells four things about a made-up building, factory, village or person, two with an answer of one kind and
two of another, so that the kind (a person, a year, a reason) does not say which one is asked for:

    青坪剧院由庞文杰设计；外墙贴着黄铜板。附近住着秦玉峰一家。如今贺建杰管理着它。屋顶铺的是竹片。
    这座剧院的图纸出自谁之手？    庞文杰    Who drew the plans of this theater?
    工匠在青坪剧院的屋顶盖了什么？    竹片    What is the theater's roof covered with?

In train each thing is told in one of two wordings, and asked for with the words of that one or of the other. The test
part asks in wordings of its own, half of them with question words that train never shows (哪位 instead of 谁, 何处
instead of 哪里), and tells half of the things in a wording of its own. Its names, numbers, materials and reasons are
new.
"""

import json
import random
import sys
from pathlib import Path

SIZES = {"train": 175, "test": 50}  # paragraphs

# Of each subject its kinds, how a question may call it, and for each kind of answer what can be told: two wordings of
# train, two questions that ask with the words of the first and of the second; then one wording of test, two questions.
# {s} is the subject, {x} the answer; in a question {s} is the subject, too.
SUBJECTS = {
    "building": ("剧院 图书馆 博物馆 礼堂 车站 钟楼", "这座{kind}"),
    "firm": ("茶厂 瓷厂 酒厂 纸厂 糖厂 伞厂", "这家{kind}"),
    "place": ("镇 村 岛", "这个{kind}"),
    "person": ("画家 木匠 裁缝 乐师 铁匠 石匠", "这位{kind}"),
}
RELATIONS = {
    "building": {
        "person": [
            "{s}由{x}设计|{s}的图纸出自{x}之手|谁设计了{s}？|{s}的图纸出自谁之手？"
            "|{x}是{s}的设计者|设计{s}的人是谁？|{s}的图纸是哪位画的？",
            "{x}捐钱建了{s}|{s}的建造费用由{x}承担|谁捐钱建了{s}？|{s}的建造费用由谁承担？"
            "|捐钱建造{s}的是{x}|捐钱建{s}的人是谁？|承担{s}建造费用的是哪位？",
            "如今{x}管理着{s}|{s}现在的负责人是{x}|如今谁管理着{s}？|{s}现在的负责人是谁？"
            "|眼下{s}归{x}管理|管理着{s}的人如今是谁？|现在哪位是{s}的负责人？",
        ],
        "year": [
            "{s}在{x}动工|{s}的地基是{x}打下的|{s}是哪一年动工的？|{s}的地基是哪一年打下的？"
            "|{x}，{s}动了工|{s}动工是在哪一年？|{s}的地基是哪年打的？",
            "{x}，大火烧毁了{s}|{s}在{x}毁于火灾|大火是哪一年烧毁{s}的？|{s}是哪一年毁于火灾的？"
            "|{s}在{x}被大火烧毁|{s}被烧毁是在哪一年？|{s}毁于火灾是哪年的事？",
            "{s}在{x}重新开放|{x}，{s}修好后再次迎客|{s}是哪一年重新开放的？|{s}哪一年再次迎客？"
            "|到了{x}，{s}才重新开放|{s}重新开放是在哪一年？|{s}再次迎客是哪年的事？",
        ],
        "material": [
            "外墙贴着{x}|用在外墙的材料是{x}|{s}的外墙贴着什么？|用在{s}外墙的材料是什么？"
            "|贴在外墙上的是{x}|贴在{s}外墙上的是什么？|{s}的外墙用了哪种材料？",
            "屋顶铺的是{x}|工匠在屋顶盖了{x}|{s}的屋顶铺的是什么？|工匠在{s}的屋顶盖了什么？"
            "|铺在屋顶上的是{x}|铺在{s}屋顶上的是什么？|{s}的屋顶用了哪种材料？",
        ],
        "number": [
            "每天有{x}人来{s}|{s}每天接待{x}名游客|每天有多少人来{s}？|{s}每天接待多少名游客？"
            "|来{s}的人每天有{x}名|来{s}的人每天有多少？|请说出{s}每天接待多少人。",
            "{s}有{x}个座位|{s}的厅里能坐{x}人|{s}有多少个座位？|{s}的厅里能坐多少人？"
            "|{s}的座位共有{x}个|{s}的座位有多少个？|请说出{s}的厅里能坐下多少人。",
        ],
    },
    "firm": {
        "person": [
            "{x}创办了{s}|{s}的创始人是{x}|谁创办了{s}？|{s}的创始人是谁？"
            "|{s}是{x}一手创办的|{s}是由谁创办的？|哪位是{s}的创始人？",
            "{x}买下了{s}|{s}后来卖给了{x}|谁买下了{s}？|{s}后来卖给了谁？"
            "|后来买下{s}的是{x}|买下{s}的人是谁？|{s}卖给了哪位？",
        ],
        "town": [
            "{s}设在{x}|{s}的厂房建在{x}|{s}设在哪里？|{s}的厂房建在什么地方？"
            "|{x}是{s}厂房的所在地|{s}的厂房在哪里？|{s}设于何处？",
            "原料从{x}运来|{s}的原料产自{x}|{s}的原料从哪里运来？|{s}的原料产自什么地方？"
            "|{s}用的原料来自{x}|{s}的原料来自哪里？|何处出产{s}的原料？",
        ],
        "number": [
            "{s}有{x}名工人|在{s}做工的有{x}人|{s}有多少名工人？|在{s}做工的有多少人？"
            "|{s}的工人一共是{x}名|{s}的工人有多少名？|请说出在{s}做工的人有多少。",
            "{s}每月卖出{x}箱货|每个月有{x}箱货运出{s}|{s}每月卖出多少箱货？|每个月有多少箱货运出{s}？"
            "|每月从{s}卖出的货有{x}箱|{s}每月卖出的货有多少箱？|请说出每个月运出{s}的货有多少箱。",
        ],
        "reason": [
            "因为{x}，{s}停工半年|{s}停工，原因是{x}|{s}为什么停工半年？|{s}停工的原因是什么？"
            "|{s}曾由于{x}而停工|{s}停工是为什么？|{s}何故停工？",
            "因为{x}，{s}的货涨了价|{s}的货涨价，原因是{x}|{s}的货为什么涨了价？|{s}的货涨价的原因是什么？"
            "|{s}的货由于{x}而涨价|{s}的货涨了价是为什么？|{s}的货何故涨了价？",
        ],
    },
    "place": {
        "year": [
            "{x}，{s}通了电|{s}的第一盏电灯在{x}亮起|{s}哪一年通了电？|{s}的第一盏电灯哪一年亮起？"
            "|{s}是{x}通的电|{s}通电是在哪一年？|{s}亮起第一盏电灯是哪年的事？",
            "{s}在{x}遭了水灾|{x}，洪水淹了{s}|{s}哪一年遭了水灾？|洪水哪一年淹了{s}？"
            "|{s}被洪水淹没是在{x}|{s}被洪水淹没是在哪一年？|{s}遭了水灾是哪年的事？",
        ],
        "number": [
            "{s}住着{x}户人家|{s}一共有{x}户|{s}住着多少户人家？|{s}一共有多少户？"
            "|{s}的人家共有{x}户|{s}的人家有多少户？|请说出{s}总共有多少户。",
            "{s}有{x}口水井|人们在{s}打了{x}口井|{s}有多少口水井？|人们在{s}打了多少口井？"
            "|{s}的水井共有{x}口|{s}的水井有多少口？|请说出人们在{s}打的井有多少口。",
        ],
        "date": [
            "{s}的庙会在{x}举行|每到{x}，{s}就有庙会|{s}的庙会哪一天举行？|{s}哪一天有庙会？"
            "|{x}是{s}举行庙会的日子|{s}举行庙会是在哪一天？|{s}的庙会是几月几日？",
            "{s}的赛马在{x}开始|{x}这一天，{s}要赛马|{s}的赛马哪一天开始？|{s}哪一天要赛马？"
            "|{s}把赛马定在{x}|{s}的赛马定在哪一天？|{s}的赛马是几月几日？",
        ],
        "reason": [
            "因为{x}，年轻人离开了{s}|年轻人离开{s}，原因是{x}|年轻人为什么离开{s}？|年轻人离开{s}的原因是什么？"
            "|年轻人由于{x}而离开{s}|年轻人离开{s}是为什么？|年轻人何故离开{s}？",
            "因为{x}，{s}的学校搬了家|{s}的学校搬家，原因是{x}|{s}的学校为什么搬了家？|{s}的学校搬家的原因是什么？"
            "|{s}的学校由于{x}而搬家|{s}的学校搬家是为什么？|{s}的学校何故搬了家？",
        ],
    },
    "person": {
        "person": [
            "{s}拜{x}为师|{x}教会了{s}手艺|{s}拜谁为师？|谁教会了{s}手艺？"
            "|教会{s}手艺的老师是{x}|{s}的老师是谁？|哪位教会了{s}手艺？",
            "{s}收了{x}为徒|{x}继承了{s}的手艺|{s}收了谁为徒？|谁继承了{s}的手艺？"
            "|继承{s}手艺的徒弟是{x}|{s}的徒弟是谁？|哪位继承了{s}的手艺？",
        ],
        "year": [
            "{s}生于{x}|{x}，{s}出生|{s}生于哪一年？|{s}是哪一年出生的？"
            "|{s}是在{x}出生的|{s}出生是在哪一年？|{s}生于哪年？",
            "{s}在{x}成家|{x}，{s}办了婚礼|{s}哪一年成家？|{s}哪一年办了婚礼？"
            "|{s}成家是在{x}|{s}成家是在哪一年？|{s}办婚礼是哪年的事？",
        ],
        "town": [
            "{s}的老家在{x}|{s}在{x}长大|{s}的老家在哪里？|{s}在什么地方长大？"
            "|{x}是{s}长大的地方|{s}的老家是哪里？|{s}在何处长大？",
            "{s}后来搬到了{x}|晚年{s}住在{x}|{s}后来搬到了哪里？|晚年{s}住在什么地方？"
            "|{s}晚年搬去了{x}|{s}晚年搬去了哪里？|{s}晚年住在何处？",
        ],
        "number": [
            "{s}带过{x}个学生|跟{s}学过的有{x}人|{s}带过多少个学生？|跟{s}学过的有多少人？"
            "|{s}的学生前后有{x}个|{s}的学生有多少个？|请说出跟{s}学过的人有多少。",
            "{s}写了{x}封信|{s}寄出的信有{x}封|{s}写了多少封信？|{s}寄出的信有多少封？"
            "|{s}写的信共有{x}封|{s}写的信有多少封？|请说出{s}寄出了多少封信。",
        ],
    },
}
ASIDES = {  # of which nothing is asked
    "train": [
        "附近住着{person}一家",
        "{person}常说起这些",
        "去{town}的路从旁边经过",
        "春天这里常常下雨",
        "老人们至今还记得",
        "{year}的报纸登过照片",
    ],
    "test": [
        "不远处就是{person}的家",
        "{person}写过一篇文章",
        "往{town}去的车停在近旁",
        "秋天这里风很大",
        "书上也有记载",
    ],
}

SURNAMES = "骆邹秦尹贺龚庞樊柯阮岑褚邢戚蒋章熊纪舒屈"
GIVEN_FIRST, GIVEN_SECOND = "晓文志建立思永春国玉", "军刚勇松杰平明伟峰生"
TOWN_FIRST, TOWN_SECOND = "青白云石柳金长新南清双红", "溪河山泉桥湖林沟坪湾岭塘"
TOWN_ENDINGS = ["县", "镇", "城", "乡"]
REAL = (
    "青山 青河 青湖 白河 白山 云山 云溪 云林 石泉 石林 石河 石桥 柳河 柳林 金山 金湖 金溪 长岭 长河 长桥 长沟 新河 "
    "新湖 新林 南山 南河 南湖 南溪 南桥 清河 清泉 清溪 双桥 双河 双湖 红河 红山 红湖 红桥 青林 白云 金沟 长山 长林 "
    "长湖 新桥 双沟 石湾 云岭 南岭 金桥"
)
MATERIALS = {
    "train": "青石板|杉木板|黄铜板|红陶片|白铁皮|竹片|毛竹",
    "test": "灰石板|松木板|黄石片|绿陶片|黑铁皮",
}
REASONS = {
    "train": "河水上涨|道路不通|天气太冷|连月下雨|山石松动|水源不足|交通中断|风沙太大",
    "test": "河水断流|山路塌方|天气太热|连年下雪|土石滑坡|电力不足|桥梁垮塌|风浪太大",
}


class Writer:
    """Writes paragraphs with their questions.

    Args:
        part: "train" or "test", whose wordings, names and numbers are used.
        draw: where chance comes from.
    """

    def __init__(self, part: str, draw: random.Random) -> None:
        self.part, self.draw, self.odd = part, draw, int(part == "test")

    def of_part(self, first: str, second: str) -> str:
        """Two characters; a third of the pairs belongs to the test part."""
        while True:
            i, j = self.draw.randrange(len(first)), self.draw.randrange(len(second))
            if ((i + j) % 3 == 0) == (self.part == "test") and first[i] + second[j] not in REAL.split():
                return first[i] + second[j]

    def person(self) -> str:
        return self.draw.choice(SURNAMES) + self.of_part(GIVEN_FIRST, GIVEN_SECOND)

    def town(self) -> str:
        return self.of_part(TOWN_FIRST, TOWN_SECOND)

    def answer(self, kind: str) -> str:
        if kind == "person":
            return self.person()
        if kind == "town":
            return self.town() + self.draw.choice(TOWN_ENDINGS)
        if kind == "material":
            return self.draw.choice(MATERIALS[self.part].split("|"))
        if kind == "reason":
            return self.draw.choice(REASONS[self.part].split("|"))
        if kind == "date":  # odd days in test, even ones in train, and so with other numbers
            return f"{self.draw.randrange(1, 13)}月{2 * self.draw.randrange(1, 14) + self.odd}日"
        return str(2 * self.draw.randrange(10, 480) + self.odd)

    def answers(self, kind: str, count: int, taken: set[str]) -> list[str]:
        """So many answers that are not yet taken; years in their order."""
        if kind == "year":
            first = 2 * self.draw.randrange(940, 955) + self.odd
            gaps = [2 * self.draw.randrange(10, 22) for _ in range(count - 1)]
            return [f"{first + sum(gaps[:place])}年" for place in range(count)]
        found: list[str] = []
        while len(found) < count:
            answer = self.answer(kind)
            if not any(answer in one or one in answer for one in taken):
                found.append(answer)
                taken.add(answer)
        return found

    def paragraph(self, number: int) -> dict[str, object]:
        """A paragraph as SQuAD has it, with a question for each of four things that it tells."""
        subject = self.draw.choice(list(SUBJECTS))
        kinds, calling = SUBJECTS[subject]
        kind = self.draw.choice(kinds.split())
        place = self.town() + kind
        person = self.person()
        whole = kind + person if subject == "person" else place
        short, called = person if subject == "person" else place, calling.format(kind=kind)
        taken = {whole[:2], person}
        chosen: list[tuple[str, str]] = []
        for what in self.draw.sample(list(RELATIONS[subject]), 2):
            relations = RELATIONS[subject][what]
            places = sorted(self.draw.sample(range(len(relations)), 2))
            chosen += zip([relations[one] for one in places], self.answers(what, 2, taken), strict=True)
        self.draw.shuffle(chosen)
        chosen.sort(key=lambda one: one[0].startswith(("外墙", "屋顶", "原料")))  # those that name no subject
        chosen = [chosen[0], *self.draw.sample(chosen[1:], len(chosen) - 1)]
        context, asked = "", []
        for (relation, answer), end in zip(chosen, self.ends(len(chosen), taken), strict=True):
            telling, question = self.wordings(relation)
            sentence = telling.replace("{s}", self.mention(subject, telling, whole, called) if context else whole)
            start = len(context) + sentence.index("{x}")
            context += sentence.replace("{x}", answer) + end
            asked.append((question.replace("{s}", self.draw.choice([called, short])), answer, start))
        self.draw.shuffle(asked)
        qas = [
            {"id": f"{number}.{index}", "question": question, "answers": [{"text": text, "answer_start": start}]}
            for index, (question, text, start) in enumerate(asked)
        ]
        return {"title": whole, "paragraphs": [{"context": context, "qas": qas}]}

    def wordings(self, relation: str) -> tuple[str, str]:
        """How a thing is told, and asked for.

        In train three of five are asked for with the words of the other wording. In test half are told in a wording
        of its own, and all are asked for in one; half of these have a question word of their own, too.
        """
        *train, told, asked, otherwise = relation.split("|")
        telling = self.draw.randrange(2)
        if self.part == "test":
            return self.draw.choice([told, train[telling]]), self.draw.choice([asked, otherwise])
        return train[telling], train[2 + (telling if self.draw.random() < 0.4 else 1 - telling)]

    def mention(self, subject: str, telling: str, whole: str, called: str) -> str:
        """The subject after the first sentence: a pronoun only where it reads well."""
        if subject == "person":
            return self.draw.choice(["他", "他", called])
        begins = telling.startswith(("{s}在", "{s}的", "{s}由", "{s}是", "{s}后来", "{s}有", "{s}每"))
        return self.draw.choice(["它", called] if begins and subject != "place" else [called])

    def ends(self, count: int, taken: set[str]) -> list[str]:
        """What stands after each thing told: a full stop, once perhaps a semicolon, and sentences not asked about."""
        found = ["。"] * count
        if self.draw.random() < 0.5:
            found[self.draw.randrange(count - 1)] = "；"
        asides = self.draw.sample(ASIDES[self.part], self.draw.choice([0, 1, 1, 2]))
        for place, aside in zip(self.draw.sample(range(count), len(asides)), asides, strict=True):
            (person,), (town,) = self.answers("person", 1, taken), self.answers("town", 1, taken)
            year = f"{2 * self.draw.randrange(1000, 1010) + self.odd}年"
            found[place] = f"。{aside.format(person=person, town=town, year=year)}。"
        return found


def build(seed: int = 0) -> dict[str, dict[str, object]]:
    """Both parts, in the format of SQuAD 1.1."""
    draw = random.Random(seed)
    parts: dict[str, dict[str, object]] = {}
    for part, size in SIZES.items():
        writer = Writer(part, draw)
        parts[part] = {"version": "1.1", "data": [writer.paragraph(number) for number in range(size)]}
    return parts


def main(folder: Path) -> None:
    target = folder / "questions_zh"
    target.mkdir(parents=True, exist_ok=True)
    for part, content in build().items():
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
        (target / f"{part}.json").write_text(text + "\n", encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
