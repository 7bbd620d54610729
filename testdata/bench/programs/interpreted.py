# Typical work of Python programs: classes, recursion, sorting by a key, regular expressions, JSON.
# `interpreted.py SECONDS`.
import json
import re
import sys
import time
from dataclasses import dataclass


@dataclass
class Item:
    name: str
    price: float

    def total(self):
        return self.price * 1.19


def fibonacci(n):
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)


def tree(depth):
    return {"depth": depth, "children": [tree(depth - 1) for _ in range(3)]} if depth else {"leaf": "x" * 20}


end = time.monotonic() + float(sys.argv[1])
pattern = re.compile(r"(\w+)-(\d+)(?:\.(\d+))?")
while time.monotonic() < end:
    items = [Item(f"item-{i * 7919 % 1000}", i * 7919 % 977) for i in range(500)]
    items.sort(key=lambda item: (item.total(), item.name))
    found = sum(int(match[2]) for item in items for match in pattern.finditer(item.name))
    text = json.dumps(tree(5))
    assert json.loads(text)["depth"] == 5
    assert fibonacci(15) == 610 and found > 0
