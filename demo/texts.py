"""What the demo's page says, in English and Chinese. Captions stay in the language of their model.

``{...}`` are filled in by ``str.format``. A text that is missing in a language is a type error.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from demo.limits import SERVER_FULL, VISITOR_FULL
from demo.uploads import DAMAGED, NAMES, NOT_AN_IMAGE, TOO_MANY_BYTES, TOO_MANY_PIXELS


@dataclass(frozen=True, kw_only=True)
class Texts:
    """All texts of the page in one language."""

    name: str  # of the language, in itself
    title: str
    no_model: str
    # Images
    source: str
    upload: str
    camera: str
    uploader: str
    take: str
    too_many: str
    examples: str
    drawings_only: str
    # Settings
    settings: str
    model: str
    pretrained: str
    about_model: str
    loading: str
    unreadable: str
    decoding: str
    beam: str
    greedy: str
    sampling: str
    beam_size: str
    about_beam: str
    about_greedy: str
    temperature: str
    seed: str
    same_seed: str
    about_sampling: str
    compare: str
    about_compare: str
    second: str
    # A captioned image
    captioning: str
    empty: str
    choose_attention: str
    choose_word: str
    about_bars: str
    play: str
    stop: str
    instead: str
    end: str
    places: tuple[str, str, str, str, str, str]  # top to bottom, left to right
    spread: str
    seldom_right: str
    share_right: str
    unlike: str
    about_share: str
    candidates: str
    score: str
    log_prob: str
    about_score: str
    order: str
    alt_text: str
    took: str
    # Downloads, and the foot of the page
    download_image: str
    download_csv: str
    download_json: str
    disclaimer: str
    limits: str
    about_limits: str
    privacy: str
    model_card: str
    messages: Mapping[str, str] = field(default_factory=dict)  # what the server answers in English -> the same here

    def message(self, english: str) -> str:
        """A message of demo/limits.py or demo/uploads.py in this language."""
        return self.messages.get(english, english)


ENGLISH = Texts(
    name="English",
    title="Caption your photos",
    no_model="There is no model here yet. Train one on the bundled drawings (about a minute on two CPU cores):",
    source="Image source",
    upload="Upload",
    camera="Camera",
    uploader="Photos, up to 10 MB and 50 megapixels each, at most {count}",
    take="Take a photo",
    too_many="Only the first {count} photos are captioned. Remove some to caption the others.",
    examples="Or try an example:",
    drawings_only="This model was trained on drawings only: its captions of photos will be wrong. Choose another one.",
    settings="Settings",
    model="Model",
    pretrained="pretrained on Flickr8k",
    about_model="{decoder} decoder, vocabulary of {words:,} tokens, input of {size} x {size} pixels",
    loading="Loading the model …",
    unreadable="This checkpoint cannot be read: it is damaged, or from an incompatible version. "
    "Choose another one, or train it again.",
    decoding="Decoding",
    beam="Beam search",
    greedy="Greedy",
    sampling="Sampling",
    beam_size="Beam size",
    about_beam="Keeps this many candidates after each word.",
    about_greedy="Takes the most probable word at each step: fast, and a single caption.",
    temperature="Temperature",
    seed="Seed",
    same_seed="The same seed gives the same captions.",
    about_sampling="Samples {count} captions word by word and shows the most probable one first. "
    "A higher temperature gives more varied captions.",
    compare="Compare two captions",
    about_compare="Captions each image a second time, by another model or with another kind of decoding.",
    second="Second caption",
    captioning="Captioning …",
    empty="(empty caption)",
    choose_attention="Choose a word to see where the model looked and what else it considered.",
    choose_word="Choose a word to see what else the model considered.",
    about_bars="Bars: how probable each word was.",
    play="Play all words",
    stop="Stop",
    instead="Instead:",
    end="(end)",
    places=("top", "middle", "bottom", "left", "centre", "right"),
    spread="spread over the whole image",
    seldom_right="Unsure: captions this probable were right for only {share} % of the validation photos.",
    share_right="Captions this probable were right for {share} % of the validation photos.",
    unlike="Very unsure: captions this improbable were right for only {share} % of the validation photos. The image "
    "may be unlike all that the model knows.",
    about_share="Measured on {count:,} photos, mostly of people and dogs outdoors, that the model was not trained on. "
    "Right: CIDEr above {cider} against the captions of five people.",
    candidates="Candidates, best first",
    score="Ranking score",
    log_prob="Log-probability",
    about_score="The log-probability is the natural logarithm of the caption's probability. Every word lowers it, so "
    "candidates are ranked by log-probability / length^{penalty}, where length counts the words and the end. "
    "Some models, such as the pretrained one, add how well the captions of similar training images match.",
    order="A longer caption comes before a shorter one that is more probable: see the ranking score.",
    alt_text="Alt text (check it before you use it)",
    took="{seconds:.1f} s",
    download_image="Photo with its caption (JPG)",
    download_csv="All captions as a table (CSV)",
    download_json="All captions with candidates (JSON)",
    disclaimer="The model guesses, and a wrong caption reads as fluently as a right one: check every caption.",
    limits="What the model cannot do",
    about_limits="It works best on images like those it was trained on; for the pretrained model, photos of people and "
    "dogs outdoors. It **cannot** read text, recognise people, count beyond a few or know what is outside the frame, "
    "and it infers gender and age from appearance. Do not rely on captions where a mistake could cause harm.",
    privacy="Your images stay in this server's memory while the page is open. They are not stored or shared.",
    model_card="Model card of the pretrained model",
)

CHINESE = Texts(
    name="中文",
    title="给照片配上描述",
    no_model="这里还没有模型。可以先用自带的简笔画训练一个（两个 CPU 核心约需一分钟）：",
    source="图片来源",
    upload="上传",
    camera="拍照",
    uploader="照片：每张不超过 10 MB、5000 万像素，最多 {count} 张",
    take="拍一张照片",
    too_many="只处理前 {count} 张照片。移除一些，即可处理其余的。",
    examples="或者试试示例图片：",
    drawings_only="这个模型只用简笔画训练过，对照片的描述不会准确。请换一个模型。",
    settings="设置",
    model="模型",
    pretrained="Flickr8k 预训练模型",
    about_model="{decoder} 解码器，词表 {words:,} 个词元，输入 {size} x {size} 像素",
    loading="正在加载模型……",
    unreadable="无法读取这个检查点：文件已损坏，或来自不兼容的版本。请换一个模型，或重新训练。",
    decoding="解码方式",
    beam="束搜索",
    greedy="贪心",
    sampling="采样",
    beam_size="束宽",
    about_beam="每生成一个词后，保留这么多个候选。",
    about_greedy="每一步都取概率最大的词：速度快，只得到一条描述。",
    temperature="温度",
    seed="随机种子",
    same_seed="种子相同，描述就相同。",
    about_sampling="逐词采样 {count} 条描述，先显示概率最大的一条。温度越高，描述越多样。",
    compare="对比两条描述",
    about_compare="用另一个模型或另一种解码方式，为每张图片再生成一条描述。",
    second="第二条描述",
    captioning="正在生成描述……",
    empty="（空描述）",
    choose_attention="点选一个词，查看模型看向哪里、还考虑过哪些词。",
    choose_word="点选一个词，查看模型还考虑过哪些词。",
    about_bars="横条表示每个词的概率。",
    play="逐词播放",
    stop="停止",
    instead="还考虑过：",
    end="（结束）",
    places=("上方", "中部", "下方", "左侧", "中间", "右侧"),
    spread="分布在整张图上",
    seldom_right="把握不大：在验证照片上，这样概率的描述只有 {share} % 是对的。",
    share_right="在验证照片上，这样概率的描述有 {share} % 是对的。",
    unlike="把握很小：在验证照片上，概率这么低的描述只有 {share} % 是对的。这张图片可能与模型见过的都不一样。",
    about_share="在 {count:,} 张未参与训练的照片上测得，多为户外的人和狗。“对”指与五个人写的描述相比，"
    "CIDEr 高于 {cider}。",
    candidates="候选描述，从好到差",
    score="排序得分",
    log_prob="对数概率",
    about_score="对数概率是描述的概率的自然对数，每多一个词就会更低，因此候选按“对数概率 / 长度^{penalty}”排序，"
    "长度包括各词和结束符。有的模型（例如预训练模型）还会加上候选与相似训练图片的描述有多吻合。",
    order="较长的描述排在了概率更大的较短描述之前：请看排序得分。",
    alt_text="替代文本（使用前请检查）",
    took="{seconds:.1f} 秒",
    download_image="带描述的照片（JPG）",
    download_csv="全部描述的表格（CSV）",
    download_json="全部描述及候选（JSON）",
    disclaimer="模型只是在猜，错误的描述读起来和正确的一样通顺：请逐条检查。",
    limits="模型做不到什么",
    about_limits="图片与训练图片越相似，效果越好；预训练模型最擅长户外的人和狗。它**不能**识别文字、认出人物、数清较多的"
    "物体，也不知道画面之外有什么；它会根据外表推断性别和年龄。如果出错可能造成伤害，请不要依赖这些描述。",
    privacy="页面打开期间，图片只保存在服务器的内存里，不会写入磁盘，也不会分享。",
    model_card="预训练模型的模型卡（英文）",
    messages={
        VISITOR_FULL: "页面最多容纳 20 张照片，共 100 MB。请移除一些，或刷新页面后再添加。",
        SERVER_FULL: "服务器暂时存不下更多照片，请过几分钟再试。",
        TOO_MANY_BYTES: "文件超过 10 MB。请另存一份较小的再试。",
        TOO_MANY_PIXELS: "图片超过 5000 万像素。请缩小后再试。",
        NOT_AN_IMAGE: f"这不是 {NAMES.replace(', ', '、').replace(' or ', ' 或 ')} 图片。请另存为其中一种格式再试。",
        DAMAGED: "图片已损坏或不完整。请换一份再试。",
    },
)

LANGUAGES = {"en": ENGLISH, "zh": CHINESE}
