"""Print the oldest versions that this package allows of what it uses, as requirements for pip."""

import re

import tomllib

EXTRAS = ("test", "embeddings", "pgvector", "qdrant")

with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)["project"]
for line in [*project["dependencies"], *(line for name in EXTRAS for line in project["optional-dependencies"][name])]:
    print(re.sub(r">=\s*", "==", line))
