"""Write rules/models/tokenizer_classes.toml: what every tokenizer class of transformers does before an editor touches it.

    python scripts/tabulate_tokenizer_classes.py PYTHON [PYTHON ...]

Each PYTHON is the interpreter of an environment with one transformers release (and with sentencepiece, or else the slow
classes of transformers 4 are missing). This script runs itself in each of them, looks at the classes there, and writes
the table. Nothing is downloaded. Run it again for a new release; tests/test_tokenizer_folder.py then proves the rows.
"""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

TABLE = Path(__file__).resolve().parent.parent / "rules" / "models" / "tokenizer_classes.toml"

# How a class makes its tokenizer out of tokenizer.json, by the names in padcheck/sources/tokenizer_recipes.py. A class
# stands here only if the test compares it with AutoTokenizer; every other class is left to transformers.
RECIPES: dict[str, dict[str, str]] = {
    "4": {
        "PreTrainedTokenizerFast": "as-is",
        "GPT2TokenizerFast": "as-is",
        "GPT2Tokenizer": "gpt2-slow",
        "CodeGenTokenizerFast": "as-is",
        "BloomTokenizerFast": "as-is",
        "Qwen2TokenizerFast": "qwen2",
        "LlamaTokenizerFast": "bos-eos",
        "CodeLlamaTokenizerFast": "bos-eos",
        "GemmaTokenizerFast": "bos-eos",
        "CohereTokenizerFast": "bos-eos",
        "GPTNeoXTokenizerFast": "bos-eos",
        "T5TokenizerFast": "t5",
        "MT5TokenizerFast": "t5",
        "BertTokenizerFast": "bert",
        "DistilBertTokenizerFast": "bert",
    },
    "5": {
        "TokenizersBackend": "as-is",
        "GPT2Tokenizer": "gpt2",
        "CodeGenTokenizer": "codegen",
        "Qwen2Tokenizer": "qwen2",
        "Qwen3_5Tokenizer": "qwen3.5",
        "LlamaTokenizer": "llama",
        "CodeLlamaTokenizer": "code-llama",
        "GemmaTokenizer": "gemma",
        "CohereTokenizer": "cohere",
        "GPTNeoXTokenizer": "gpt-neox",
        "T5Tokenizer": "t5",
        "BertTokenizer": "bert",
    },
}
NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
GENERIC = {"4": "PreTrainedTokenizerFast", "5": "TokenizersBackend"}


def look() -> dict[str, Any]:
    """What the transformers of the running interpreter has, as JSON-able data."""
    import transformers
    from transformers.models.auto import tokenization_auto as auto

    generation = transformers.__version__.split(".")[0]
    fast_base = transformers.PreTrainedTokenizerFast
    names = {name for name in dir(transformers) if name.endswith(("Tokenizer", "TokenizerFast"))}
    for named in auto.TOKENIZER_MAPPING_NAMES.values():
        names.update(name for name in ((named,) if isinstance(named, str) else named or ()) if name)

    classes: dict[str, dict[str, Any]] = {}
    same: dict[str, str] = {}
    for name in sorted(names):
        try:
            found = auto.tokenizer_class_from_name(name)
            if found is None or not hasattr(found, "padding_side"):  # RagTokenizer is no tokenizer of one text
                continue
        except Exception:  # a class whose optional dependency is missing
            continue
        if found.__name__ != name:
            same[name] = found.__name__
        classes[found.__name__] = describe(found, issubclass(found, fast_base), RECIPES[generation])
    classes[fast_base.__name__] = describe(fast_base, True, RECIPES[generation])

    generic = GENERIC[generation]
    types = by_config(auto, generic)
    unnamed = {}
    if generation == "5":
        # 5 compares the named class with the one that the model type has by name, and asks the config only without a name.
        of_config, types = types, {kind: name for kind, name in auto.TOKENIZER_MAPPING_NAMES.items() if name}
        # Whoever has mistral-common installed gets another class, but only for folders that hold a tekken.json.
        types = {kind: generic if name == "MistralCommonBackend" else name for kind, name in types.items()}
        for kind in sorted({*of_config, *types}):
            if of_config.get(kind, generic) != types.get(kind, generic):
                unnamed[kind] = of_config.get(kind, generic)
    if generation == "5":
        neox: Any = auto.tokenizer_class_from_name("GPTNeoXTokenizer")
        if "update_post_processor" in inspect.getsource(neox):
            classes["GPTNeoXTokenizer"]["recipe"] = "gpt-neox-bos-eos"
    return {
        "release": ".".join(transformers.__version__.split(".")[:2]),
        "version": transformers.__version__,
        "generation": generation,
        "classes": classes,
        "same": same,
        "model_types": types,
        "unnamed": unnamed,
        "wrong_on_the_hub": sorted(getattr(auto, "MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS", ())),
        "ways": [way for way, there in ways(auto, fast_base).items() if there],
    }


def ways(auto: Any, fast_base: Any) -> dict[str, bool]:
    """Behaviour that came or went inside a generation, told by what the release's own source holds."""
    loading = inspect.getsource(auto.AutoTokenizer.from_pretrained)
    decoding = inspect.getsource(fast_base._decode)
    return {
        # decode() leaves the spaces of a BPE tokenizer alone although clean_up_tokenization_spaces is true
        "bpe-kept-untidied": "even_though_it_will_corrupt_output" in decoding,
        # a folder that names LlamaTokenizer but holds a byte-level tokenizer.json gets the generic class
        "byte-level-llama-is-generic": "_tokenizer_json_has_byte_level" in loading,
        # where the named class is not the one of the model type, the named one is believed (else: the generic class)
        "named-class-believed": "registered_class_name" in loading,
    }


def describe(found: Any, fast: bool, recipes: dict[str, str]) -> dict[str, Any]:
    """The defaults of one class."""
    defaults: dict[str, Any] = {}
    for base in reversed(found.__mro__[:-1]):
        if "__init__" in vars(base):
            defaults.update({p.name: p.default for p in inspect.signature(vars(base)["__init__"]).parameters.values()})
    row: dict[str, Any] = {"fast": fast, "side": found.padding_side}
    if defaults.get("padding_side") in ("left", "right"):
        row["side"] = defaults["padding_side"]
    if defaults.get("clean_up_tokenization_spaces") is True:
        row["clean_up"] = True
    if found.__name__ in recipes:
        row["recipe"] = recipes[found.__name__]
        for key in NAMED:
            # None is not "nothing said": it keeps the pad token of tokenizer.json's padding section from being taken.
            if key in defaults and defaults[key] is not inspect.Parameter.empty:
                row[key.removesuffix("_token")] = str(defaults[key] or "")
        for key in ("add_bos_token", "add_eos_token"):
            if defaults.get(key) is True:
                row[key.removesuffix("_token")] = True
        if 'kwargs["from_slow"] = True' in inspect.getsource(found.__init__):
            row["from_slow"] = True
    return row


def by_config(auto: Any, generic: str) -> dict[str, str]:
    """The class that a config object of each model type leads to; several types share one config class."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    found = {}
    for kind in sorted(CONFIG_MAPPING):
        try:
            classes = auto.TOKENIZER_MAPPING.get(CONFIG_MAPPING[kind], None)
        except Exception:  # a class whose optional dependency is missing
            continue
        if classes is not None and not isinstance(classes, tuple):
            classes = (classes,)
        name = next((one.__name__ for one in reversed(classes or ()) if one is not None), None)
        if name is not None or generic == "TokenizersBackend":
            found[kind] = generic if name in (None, "MistralCommonBackend") else str(name)
    return found


def table(found: list[dict[str, Any]]) -> str:
    lines = [
        "# What the tokenizer classes of transformers do when a folder is loaded, per release.",
        "# Made by scripts/tabulate_tokenizer_classes.py; mend that script, not this file.",
        "#",
        "# generic      the class for every name that stands nowhere here (in generation 4 such a name is an error).",
        "# like         this release is as that one but for what follows; absent: what that one has and this one has not.",
        "# ways         behaviour that came or went inside a generation; see the script.",
        "# fast, slow   classes that pad on the right and that only transformers itself can read.",
        "# classes      all others. side: the padding side where no file states one. recipe: how tokenizer.json becomes",
        "#              the tokenizer (without one, only transformers can tell). bos, eos, unk ...: special tokens where",
        '#              no file states them, "" for none. clean_up: decode() tidies spaces. add_bos, add_eos: added where',
        "#              no file says. from_slow: stating add_prefix_space makes it convert the slow tokenizer.",
        "# same         names that lead to another class.",
        "# model_types  the class that config.json's model_type leads to; unnamed: where it differs if no file names",
        "#              a class; wrong_on_the_hub: types for which the named class is not believed.",
    ]
    written: dict[str, dict[str, Any]] = {}
    for one in found:
        like = written.get(one["generation"])
        lines += ["", *section(one, like)]
        written.setdefault(one["generation"], one)
    return "\n".join(lines) + "\n"


def section(one: dict[str, Any], like: dict[str, Any] | None) -> list[str]:
    release = f'"{one["release"]}"'
    generic = GENERIC[one["generation"]]
    before: dict[str, Any] = like or {
        "classes": {},
        "same": {},
        "model_types": {},
        "unnamed": {},
        "wrong_on_the_hub": [],
    }
    rows = {name: row for name, row in one["classes"].items() if row != before["classes"].get(name)}
    plain = {
        name for name, row in rows.items() if row in ({"fast": True, "side": "right"}, {"fast": False, "side": "right"})
    }
    lines = [f"[{release}]", f'version = "{one["version"]}"']
    lines += [f'like = "{like["release"]}"'] if like else [f'generic = "{generic}"']
    lines += listing("ways", one["ways"]) or ["ways = []"]
    for key, fast in (("fast", True), ("slow", False)):
        lines += listing(key, sorted(name for name in plain if rows[name]["fast"] is fast))
    lines += listing("absent", sorted(set(before["classes"]) - set(one["classes"])))
    if one["wrong_on_the_hub"] != before["wrong_on_the_hub"]:
        lines += listing("wrong_on_the_hub", one["wrong_on_the_hub"])
    if rows.keys() - plain:
        lines += ["", f"[{release}.classes]"]
        lines += [f"{name} = {inline(row)}" for name, row in sorted(rows.items()) if name not in plain]
    for key in ("same", "model_types", "unnamed"):
        pairs = {name: value for name, value in one[key].items() if value != before[key].get(name)}
        gone = sorted(set(before[key]) - set(one[key]))
        if pairs or gone:
            lines += ["", f"[{release}.{key}]", *listing("absent", gone)]
            lines += [line for value, names in grouped(pairs) for line in listing(value, names)]
    return lines


def grouped(pairs: dict[str, str]) -> list[tuple[str, list[str]]]:
    groups: dict[str, list[str]] = {}
    for key, value in pairs.items():
        groups.setdefault(value, []).append(key)
    return [(value, sorted(keys)) for value, keys in sorted(groups.items())]


def inline(row: dict[str, Any]) -> str:
    return "{ " + ", ".join(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in row.items()) + " }"


def listing(key: str, values: list[str]) -> list[str]:
    """`key = [...]`, wrapped at 130 characters; nothing for an empty list."""
    if not values:
        return []
    lines, line = [], f"{key} = ["
    for i, value in enumerate(values):
        piece = json.dumps(value) + ("," if i < len(values) - 1 else "")
        if len(line) + len(piece) > 128:
            lines.append(line.rstrip())
            line = "  "
        line += piece + " "
    return [*lines, line.rstrip() + "]"]


def main(arguments: list[str]) -> int:
    if arguments == ["--look"]:
        print(json.dumps(look()))
        return 0
    if not arguments:
        print(__doc__)
        return 2
    found = []
    for python in arguments:
        answer = subprocess.run([python, __file__, "--look"], capture_output=True, text=True, check=True)
        found.append(json.loads(answer.stdout.splitlines()[-1]))
    found.sort(key=lambda one: (one["generation"], [-int(part) for part in one["release"].split(".")]))
    TABLE.parent.mkdir(parents=True, exist_ok=True)
    TABLE.write_text(table(found), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
