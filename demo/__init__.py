"""The web demo."""

DRAWINGS_DIR = "data/sample/images"  # the bundled drawings, which it offers; below the root of the repository
EXAMPLES_DIR = "demo/examples"  # photographs to try, with their licences
# Those in it, first what the pretrained model describes well
EXAMPLES = ("shepherd.jpg", "photographer.jpg", "horses.jpg", "cat.jpg", "sheep.jpg", "coffee.jpg")
