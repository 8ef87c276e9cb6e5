"""A network quickly trained on Fashion-MNIST and quantised: what the tests of 8 bits share."""
from program import ProgramTest

FASHION = "fashion-mnist"
# Points. A net of one short epoch is undecided about many images: some 60 of 2,000 change their class, to either side, which is
# 0.4 points of chance (four seeds: -0.15 to 0.5). That the arithmetic is right is shown by sqnr_db.
MOST_DROP = 1.6


class QuantizedNetTest(ProgramTest):
    """Has `model`, in f32, int8.safetensors beside it, and in `result` what `quantize --json` printed."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        test = cls()
        test.ok("train", "--data", FASHION, "--image-size", "28", "--limit", "3000", "--epochs", "1", "--batch-size", "32", "--lr", "0.02",
                "--momentum", "0.9", "--lr-scheduler", "cosineannealinglr", "--output", "run")
        cls.model = "run/best.safetensors"
        cls.result = test.ok("quantize", cls.model, "--data", FASHION, "--output", "int8.safetensors", "--limit", "2000",
                             "--calibration-images", "128", "--max-drop", MOST_DROP, "--json").json()

    def runTest(self):  # so that setUpClass can make one
        pass
