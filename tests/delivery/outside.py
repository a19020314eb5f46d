"""What saved students are of in these tests, and a Python in which segkd cannot be imported."""

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
NAMES, PALETTE = ["sky", "road", "car"], [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
WITHOUT_SEGKD = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "segkd":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocker())
"""
