"""The words of the pages themselves; their Chinese is in the catalog `shared`."""

TITLE = "PyTorch Recipes"
WHAT = (
    "Runnable PyTorch recipes, each a small file that teaches one thing, runs offline in seconds on a laptop's CPU, "
    "and proves with numbers on held-out data that it learned. Read one, copy it, train it on your own pictures, texts "
    "or voices, and use what was trained."
)
START = "Set up, and run the first one:"
GALLERY = "Recipes"
TASKS = {
    "training": "Training",
    "vision": "Vision",
    "vision.classification": "Vision: classification",
    "vision.detection": "Vision: detection",
    "vision.segmentation": "Vision: segmentation",
    "nlp": "Language",
    "nlp.text_classification": "Language: classification of texts",
    "nlp.bert": "Language: BERT",
    "audio": "Audio",
    "compression": "Compression",
}
GUIDES = "Guides"
NOTES = "The notes"
ALL_NOTES = "The notes, point by point"
ABOUT_NOTES = (
    "The recipes make two sets of study notes on PyTorch runnable, points 41 to 50 and 81 to 90. A page a point: what "
    "it says, which recipes make it run, and what in it holds."
)
FILTER_TEXT = "Find a recipe"
FILTER_TASK = "Task"
FILTER_NOTE = "Note"
FILTER_NEEDS = "Needs no more than"
ANY = "all"
TORCH_ALONE = "torch and NumPy"
SHOWN = "shown"
MEASURED = "What was measured"
METRIC, OVER_SEEDS, BASELINE, BAR = "Metric", "Mean ± deviation", "Baseline", "Bar"
BEST_PLAIN = "Best plain method"
SPREAD = "Over seeds 0 to {last}: {learned} of {seeds} runs met their bars and beat the baseline ({baseline})."
NO_BASELINE = "Over seeds 0 to {last}: {learned} of {seeds} runs met what they are held to."
OTHER = "Another plain method, {name}: {reached}."
SECONDS = "A run with its claims took {seconds} seconds, with {threads} thread(s) of {hardware}; {versions}."
RECIPE, WHAT_IT_IS, SHORT_SECONDS = "Recipe", "What it is", "Seconds"
CLAIM, HELD, NUMBER, COMPARED = "Claim", "Held", "Measured", "Compared with"
MARGIN = "by {margin}"
CLAIMS = "Claims"
ABOUT_CLAIMS = (
    "Each sentence is measured in the run. It counts as held only with its margin, and only where the network has "
    "learned; a network that was not trained meets none."
)
FIGURE = "The figure that the recipe draws of its run: {title}"
LESSON = "The lesson"
ABOUT_LESSON = "Names that it imports lead to their source; the training loop is marked."
EVIDENCE = "The evidence: claims and figure"
OPTIONS = "Options"
OPTION, DEFAULT, MEANING = "Option", "Default", "What it is"
SHARED_OPTIONS = "Options that every recipe has"
RUN_IT, COPY_IT, USE_IT = "Run it", "Copy it", "Use it"
ABOUT_COPY = "One file of plain PyTorch that runs alone, in {lines} lines; the command brings the data it reads, too."
READ_COPY = "Read the copy"
DOWNLOAD = "Download:"
ABOUT_USE = "In another process, without the training data:"
DATA = "Data"
PAPER = "Paper"
NOTE = "Note"
SOURCE = "Source"


def sentences() -> list[str]:
    """All of them."""
    told: list[str] = []
    for name, value in globals().items():
        if name.isupper():
            told += value.values() if isinstance(value, dict) else [value]
    return told
