"""Writes the bundled Chinese entities, `entities_zh/train.conll` and `entities_zh/test.conll`: the same bytes on every
run.

    python data/make_entities_zh.py [FOLDER]

News in a sentence, a character and its tag a line, with people (PER), places (LOC) and organizations (ORG). A
made-up name of two characters may be any of them, and what decides usually stands several characters away:

    柳泉上个月底突然辞去了职务。    Liu Quan suddenly resigned.    a person
    柳泉上个月底突然发生了地震。    Liuquan was struck by an earthquake.    a place
    柳泉上个月底突然下调了售价。    Liuquan suddenly lowered its prices.    an organization
    有名的柳泉汽修厂周一关了门。    The Liuquan garage closed.    柳泉汽修厂 is the organization
    柳泉父子开的汽修厂周一关了门。    The garage of Liu Quan and his son closed.    柳泉 is a person
    江老师在江边等人。    Mr Jiang waits by the river.    the first 江 is a person, the second one no entity

In the test part cues are joined to wordings that train never joins them to, clauses are joined in ways of its own, and
all names but a surname by itself are new: two characters that train has, but never together.
"""

import random
import re
import sys
from pathlib import Path

SIZES = {"train": 1500, "test": 400}
KINDS = ("PER", "LOC", "ORG")

# Surnames that are words of the landscape or of names of places as well, and second characters that fit all kinds.
FIRST = "江林石白金云田池柳梅黄高谷关安常洪汤温万康方项丁"
SECOND = "安平阳宁川泉原海峰源清兴和明昌丰城岭溪桥"
# Well-known places, firms and words, which are left out.
REAL = (
    "江安 江平 江阳 江宁 江川 江源 江海 林海 林峰 林城 石泉 石城 石桥 石岭 石溪 白川 白城 白原 金阳 金川 金溪 金昌 "
    "金平 金桥 金城 金海 金源 云阳 云和 云溪 云城 云岭 云海 云峰 田阳 柳城 梅溪 黄平 黄海 黄岭 黄峰 高阳 高平 高原 "
    "高峰 高清 高明 高和 谷城 谷丰 关岭 安平 安阳 安宁 安溪 安丰 安和 安明 安昌 安城 常宁 常平 常明 常和 常清 汤原 "
    "汤泉 汤溪 温泉 温岭 温和 万宁 万源 万平 万丰 万和 万兴 万安 万峰 万泉 康平 康明 康宁 康安 方城 方明 方平 项城 "
    "田原 田丰 安康 洪泉 洪江 丁宁 林平 常安 康城 康桥 康泉 林源 林溪 林原 万城 安源 安桥 安海 安安 黄泉 黄兴 黄桥 "
    "高兴 高岭 高城 高桥 林清 林泉 田和 方兴 关宁 江桥 江城 石原 石川 梅城 梅川"
)
GIVEN_FIRST, GIVEN_SECOND = "晓文志建雨思永春秀玉", "兰军琴刚芳杰婷松娟勇"

# Where a name's kind is told: {x} is the name, other gaps are filled from FILLINGS.
PREDICATES = {
    "PER": "辞去了职务|生了一场大病|办了婚礼|写起了小说|摔断了一条腿|跑赢了比赛|给孩子们唱了歌|向医生道了谢|"
    "朗诵了一首诗|向那位{job}求了婚|一个人回了家|流下了眼泪|骑车摔了一跤|认出了老同学|戒掉了烟|熬了一个通宵",
    "LOC": "下起了大雪|被洪水淹没|断了水|选出了新镇长|架起了新桥|通了火车|发生了地震|迎来了晴天|修起了古城墙|"
    "关闭了海滩|庆祝了丰收|起了大雾|挤满了游客|被大雪封住|刮起了大风|下了一场冰雹",
    "ORG": "下调了售价|招了{large}名员工|宣告破产|卖掉了股份|停发了红利|因造假被罚款|召回了{large}辆汽车|盖起了新厂房|"
    "公布了利润|起诉了对手|更换了董事会|流失了大批客户|被对手收购|推出了新产品|裁掉了{large}个岗位|迁走了总部",
}
MOMENTS = (
    "上个月底|在{month}初|{day}那天|昨天夜里|前不久|就在{day}早上|去年{month}|时隔多年|这几天|在{day}的夜里|{day}一早|"
    "{day}下午"
)
MANNERS = "又|果然|竟然|再次|突然|也|居然|真的|还是"
LEADS = {
    "PER": "由两位姑妈带大|出身农家|写过三部小说|穿着红大衣|刚做完手术|会说{lang}|跟一位{job}订了婚|当了多年{job}|"
    "戴着老花镜|还没有成家",
    "LOC": "三面环山|建在两座山上|以古城墙闻名|住着{large}户人家|被大雪封住|刚发生过地震|至今不通火车|四周都是森林|"
    "盛产茶叶|离海不远",
    "ORG": "股价跌到最低|靠卖自行车起家|因造假挨了罚|拥有{large}名员工|流失了大批客户|为售价吃了官司|正要出售厂房|"
    "刚换了董事会|连年亏损|接不到订单",
}
ASIDES = "、近来常被提起|、大家并不陌生|、在{month}上过报纸|、一向少有人关心|、名字有些特别|、{day}又被问起"
ENDS = (
    "又成了话题|上了{day}的报纸|没有引起多少注意|让人吃了一惊|在报告里被提到|总算得到了帮助|被议论了很久|"
    "{month}还会被提起"
)
LISTED = (
    "在报告里被提到|{day}请求援助|{month}上了报纸|等了{number}个星期|又上了新闻|收到了部长的信|受到了表扬|让人吃了一惊"
)
PLURALS = {
    "PER": "位画家|位教师|位歌手|位农民|名护士|名飞行员|位律师|位大夫",
    "LOC": "座县城|座小镇|个村子|座海岛|个港口|个渔村|座古城|个山区",
    "ORG": "家银行|家工厂|家航空公司|家出版社|家报社|家药店|家保险公司|家啤酒厂",
}
OBJECTS = {
    "PER": "记者{day}问起{x}的病情|邻居看见{x}上了火车|大家都给{x}写过信|有人替{x}照看孩子|有人{month}向{x}求了婚|"
    "医生劝{x}多休息|老师夸{x}字写得好|孩子们跟着{x}学画",
    "LOC": "记者{day}到了{x}|火车{day}开往{x}|游客在{x}住了{number}天|有位老人从{x}坐船回来|有人在{x}郊外买了房|"
    "台风{day}逼近{x}|登山队翻过山去了{x}|船在{x}靠了岸",
    "ORG": "有位会计{month}从{x}辞了职|股民抛售了{x}的股份|不少人买了{x}的股票|有位律师进了{x}的董事会|"
    "有位工程师当上了{x}的总经理|工人{day}领到了{x}的年终奖|一家外企收购了{x}一半股权|大学生{day}进了{x}的财务科",
}
# Of a trade with a name: as its own name, run by a person, standing in a place.
TRADES = "汽修厂|律师事务所|大酒店|纺织厂|制药厂|幼儿园|照相馆|印刷厂|茶庄|书店|诊所|面馆"
TRADE_FORMS = {
    "PER": "{x}父子开的|{x}夫妇办的|{x}和弟弟合开的|{x}亲手办起的",
    "LOC": "{x}城西的|{x}唯一的|{x}老街上的|{x}最大的一家",
    "ORG": "街口的<{x}{trade}>|有名的<{x}{trade}>|<{x}{trade}>|新开张的<{x}{trade}>",
}
TRADE_ENDS = "{day}关了门|{month}着了火|又招了人|换了招牌|{day}停了电|挤满了人|快要搬走了|排起了长队"
# A county's or a street's name: by itself, or as the beginning of an institution's.
AREAS = "县|镇|路|区|村"
INSTITUTIONS = "医院|中学|小学|图书馆|电影院|养老院|博物馆|邮局"
AREA_FORMS = (
    "<{x}{area}ORG>|<{x}{area}LOC>的{inst}|<{x}{area}LOC>有个{inst}|<{x}{area}LOC>新建的{inst}|"
    "<{x}{area}LOC>居民常去的{inst}"
)
INTRODUCED = {  # an entity stands between < and >, if it is more than the name
    "PER": "画家{x}|歌手{x}|{x}先生|{x}女士|律师{x}|{x}大夫",
    "LOC": "小城{x}|<{x}县>|<{x}镇>|海岛{x}|<{x}湖>|<{x}村>",
    "ORG": "<{x}公司>|<{x}银行>|<{x}集团>|<{x}出版社>|<{x}药业>|<{x}航空>",
}
BOTH = "都上了新闻|都在报告里被提到|{day}都上了报纸|近来常被议论|都让人吃了一惊|{month}都得到了帮助"
AGAIN = (
    "只是很少有人了解{x}|可{day}人人都在打听{x}|不过没有谁听说过{x}|有人还要拍一部讲{x}的电影|只是报上没有{x}的照片|"
    "说起{x}的人更多些"
)
SPOTS = {  # where a surname's character is a word
    "江": "江边|江堤上",
    "林": "林子里|树林边",
    "石": "石阶上|石桥头",
    "白": "白墙下|白桦树下",
    "金": "金店门口|金黄的麦田边",
    "云": "云杉下|云雾里",
    "田": "田埂上|田里",
    "池": "池塘边|水池旁",
    "柳": "柳树下|柳荫里",
    "梅": "梅树旁|梅园里",
    "黄": "黄土坡上|黄叶堆里",
    "高": "高楼下|高墙外",
    "谷": "山谷里|谷仓旁",
    "关": "海关门口|关口上",
    "方": "方桌旁|地方法院门口",
    "汤": "汤面摊前|汤包店门口",
}
TITLES = "老师|先生|大夫|女士|医生|教授|律师|师傅"
ACTS = "散步|画画|等人|迷了路|拍照|遇见了老同学|接受了采访|丢了钥匙|打电话|歇脚"
SCENES = "站满了人|静悄悄的|落了一层雪|围着几个孩子|没有一个人|传来了歌声"
OPENINGS = {
    "train": ["", "", "", "据晚报报道，", "据知情人讲，", "本报{day}消息，"],
    "test": ["", "", "", "听广播里说，", "记者得知，", "{day}有消息称，"],
}
JOINTS = {"train": ["，而", "；", "；同一天，", "，这时"], "test": ["，与此同时，", "；后来，", "，另外，"]}
FILLINGS = {
    "job": "画家|教师|歌手|农民|护士|律师",
    "day": "周一|周二|周三|周四|周五|周六|周日",
    "month": "一月|二月|三月|五月|六月|七月|九月|十月",
    "lang": "法语|德语|俄语|日语|英语",
    "number": "两|三|六|七|九|十二",
    "large": "三百|四百|六百|八百|一千二百",
}
GAP = re.compile(r"\{(\w+)\}")
SHARE_JOINED = 0.6
SHARE_LONG = 0.25  # of people whose name has three characters
Tagged = list[tuple[str, str]]


def names_of(part: str) -> list[str]:
    """Names of two characters; a third of the pairs of characters belongs to the test part."""
    return [
        one + other
        for i, one in enumerate(FIRST)
        for j, other in enumerate(SECOND)
        if ((i + j) % 3 == 0) == (part == "test") and one + other not in REAL.split()
    ]


def entity(kind: str, name: str) -> Tagged:
    return [(letter, f"{'BI'[place > 0]}-{kind}") for place, letter in enumerate(name)]


class Writer:
    """Writes sentences; every character comes with its tag.

    Args:
        part: "train" or "test", whose pairs of wordings and whose names are used.
        draw: where chance comes from.
    """

    def __init__(self, part: str, draw: random.Random) -> None:
        self.part, self.draw, self.names = part, draw, names_of(part)

    def one(self, listed: str) -> str:
        return self.draw.choice(listed.split("|"))

    def pair(self, cues: str, wordings: str) -> tuple[str, str]:
        """One of each; a fourth of the pairs belongs to the test part."""
        left, right = cues.split("|"), wordings.split("|")
        while True:
            cue, wording = self.draw.randrange(len(left)), self.draw.randrange(len(right))
            if ((cue + wording) % 4 == 0) == (self.part == "test"):
                return left[cue], right[wording]

    def name(self, kind: str) -> str:
        """A name that could be of any kind, or a person's of three characters."""
        if kind == "PER" and self.draw.random() < SHARE_LONG:
            while True:
                i, j = self.draw.randrange(len(GIVEN_FIRST)), self.draw.randrange(len(GIVEN_SECOND))
                if ((i + j) % 3 == 0) == (self.part == "test"):
                    return self.draw.choice(FIRST) + GIVEN_FIRST[i] + GIVEN_SECOND[j]
        return self.draw.choice(self.names)

    def plain(self, text: str) -> Tagged:
        """Characters that are no entities, each gap filled."""
        filled = GAP.sub(lambda gap: self.one(FILLINGS[gap[1]]), text)
        return [(letter, "O") for letter in filled]

    def told(self, text: str, kind: str, name: str) -> Tagged:
        """A wording with its name, which is the entity, or a part of what stands between < and >."""
        if "<" not in text:
            text = text.replace("{x}", "<{x}>")
        before, rest = text.split("<")
        inside, after = rest.split(">")
        return self.plain(before) + entity(kind, inside.replace("{x}", name)) + self.plain(after)

    def subject_then_predicate(self) -> Tagged:
        kind = self.draw.choice(KINDS)
        predicate, moment = self.pair(PREDICATES[kind], MOMENTS)
        return self.told(f"{{x}}{moment}{self.one(MANNERS)}{predicate}", kind, self.name(kind))

    def lead_then_name(self) -> Tagged:
        kind = self.draw.choice(KINDS)
        lead, aside = self.pair(LEADS[kind], ASIDES)
        return self.told(f"{lead}{aside}的{{x}}{self.one(ENDS)}", kind, self.name(kind))

    def list_of_names(self) -> Tagged:
        kind = self.draw.choice(KINDS)
        plural, wording = self.pair(PLURALS[kind], LISTED)
        names = dict.fromkeys(self.name(kind) for _ in range(self.draw.choice((2, 3, 3))))
        while len(names) < 2:
            names[self.name(kind)] = None
        (first, *middle), last = list(names)[:-1], list(names)[-1]
        tagged = entity(kind, first)
        for name in middle:
            tagged += [("、", "O"), *entity(kind, name)]
        tagged += [("和", "O"), *entity(kind, last)]
        number = "两三"[len(names) - 2]
        if self.draw.random() < 0.4:
            return self.plain(f"{wording}的有{number}{plural}：") + tagged
        return tagged + self.plain(f"这{number}{plural}{wording}")

    def object_of_a_verb(self) -> Tagged:
        kind = self.draw.choice(KINDS)
        return self.told(self.one(OBJECTS[kind]), kind, self.name(kind))

    def with_a_trade(self) -> Tagged:
        """A trade's own name, or that of who runs it, or of where it stands."""
        kind, name = self.draw.choice(KINDS), self.draw.choice(self.names)
        trade, form = self.pair(TRADES, TRADE_FORMS[kind])
        form = form.replace("{trade}", trade) if kind == "ORG" else form + trade
        return self.told(form + self.one(TRADE_ENDS), kind, name)

    def with_an_area(self) -> Tagged:
        """A county's or a street's name by itself, or in the name of an institution."""
        institution, form = self.pair(INSTITUTIONS, AREA_FORMS)
        kind, area = "ORG" if "ORG" in form else "LOC", self.one(AREAS)
        form = (
            form.replace("ORG", institution).replace("LOC", "").replace("{area}", area).replace("{inst}", institution)
        )
        return self.told(form + self.one(TRADE_ENDS), kind, self.draw.choice(self.names))

    def mentioned_again(self) -> Tagged:
        kinds, names = self.draw.sample(KINDS, 2), self.draw.sample(self.names, 2)
        again, both = self.pair(AGAIN, BOTH)
        which = self.draw.randrange(2)
        first, second = (
            self.told(self.one(INTRODUCED[kind]), kind, name) for kind, name in zip(kinds, names, strict=True)
        )
        told = self.told(again, kinds[which], names[which])
        return [*first, ("和", "O"), *second, *self.plain(f"{both}，"), *told]

    def surname_or_word(self) -> Tagged:
        """A surname with a title, near a place that is called by a word with such a character."""
        surname = self.draw.choice(list(SPOTS))
        spot = self.one(SPOTS[surname if self.draw.random() < 0.5 else self.draw.choice(list(SPOTS))])
        scene, title = self.pair(SCENES, TITLES)
        form = self.draw.randrange(4)
        if form == 0:
            return self.told(f"{{x}}{title}在{spot}{self.one(ACTS)}", "PER", surname)
        if form == 1:
            return self.told(f"{{day}}{spot}{scene}，{{x}}{title}很高兴", "PER", surname)
        if form == 2:
            return self.told(f"{{x}}{{day}}在{spot}{self.one(ACTS)}", "PER", self.name("PER"))
        return self.told(f"{{x}}一带的{spot}{scene}", "LOC", self.name("LOC"))

    def sentence(self) -> Tagged:
        """Characters with their tags, a full stop at the end."""
        chosen = {
            self.subject_then_predicate: 26,
            self.lead_then_name: 14,
            self.list_of_names: 12,
            self.object_of_a_verb: 14,
            self.with_a_trade: 12,
            self.with_an_area: 8,
            self.mentioned_again: 8,
            self.surname_or_word: 10,
        }
        (first,) = self.draw.choices(list(chosen), list(chosen.values()))
        tagged = self.plain(self.draw.choice(OPENINGS[self.part])) + first()
        if first != self.mentioned_again and self.draw.random() < SHARE_JOINED:
            del chosen[self.mentioned_again], chosen[self.list_of_names]
            (second,) = self.draw.choices(list(chosen), list(chosen.values()))
            tagged += self.plain(self.draw.choice(JOINTS[self.part])) + second()
        return [*tagged, ("。", "O")]


def build(seed: int = 0) -> dict[str, list[Tagged]]:
    """Both parts, no sentence twice, and no test name in the train part's text, not even by chance."""
    draw = random.Random(seed)
    foreign = names_of("test")
    parts: dict[str, list[Tagged]] = {}
    for part, size in SIZES.items():
        writer = Writer(part, draw)
        sentences: dict[tuple[tuple[str, str], ...], None] = {}
        while len(sentences) < size:
            tagged = writer.sentence()
            text = "".join(letter for letter, _ in tagged)
            if part == "test" or not any(name in text for name in foreign):
                sentences[tuple(tagged)] = None
        parts[part] = [list(sentence) for sentence in sentences]
    return parts


def main(folder: Path) -> None:
    target = folder / "entities_zh"
    target.mkdir(parents=True, exist_ok=True)
    for part, sentences in build().items():
        blocks = ["".join(f"{letter} {tag}\n" for letter, tag in sentence) for sentence in sentences]
        (target / f"{part}.conll").write_text("\n".join(blocks), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
