"""What an archive of ``torch.export`` may hold: torch itself executes what some of its parts say."""

import ast
import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

_MEMBERS = re.compile(
    r"archive_format|archive_version|version|byteorder|\.\w+|\.data/\w+|models/\w+\.json|data/(weights|constants)/\w+_config\.json|"
    r"data/(weights|constants)/(weight|tensor)_\d+|data/sample_inputs/\w+\.pt|extra(_files)?/[\w.]+|serialized_\w+\.(json|pt)"
)
_OPERATORS = re.compile(
    r"torch\.ops\.(aten|prims|torchvision)\.(?!from_file\b|save\b)\w+\.[A-Za-z]\w*|torch\.ops\.higher_order\.wrap_with_\w+|"
    r"torch\._?sym_\w+|math\.[a-z]\w*|"
    r"_operator\.(add|sub|mul|truediv|floordiv|mod|neg|pos|pow|abs|eq|ne|lt|le|gt|ge|and_|or_|not_|xor|index|getitem)"
)
_SYMBOL = re.compile(r"[A-Za-z]\w*")
_FUNCTIONS = re.compile(r"[A-Z][A-Za-z]+|floor|ceiling")
_EXPRESSION = (
    ast.Expression, ast.Name, ast.Load, ast.Constant, ast.Call, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.operator,
    ast.unaryop, ast.boolop, ast.cmpop, ast.keyword,
)  # fmt: skip
_HIGHEST = 8  # power in the expression of a size


def dangers(path: Path) -> Iterator[str]:
    """Yield what may run code, or anything else that no program of ``torch.export.save`` needs.

    Raises:
        ValueError: it is no archive, or a part does not read.
    """
    if not zipfile.is_zipfile(path):
        raise ValueError("it is no archive of torch, or its end is missing")
    with zipfile.ZipFile(path) as archive:
        try:
            damaged = archive.testzip()
        except Exception as error:  # of the archive, or of what unpacks it
            raise ValueError(f"{error}") from error
        if damaged is not None:
            raise ValueError(f"{damaged} is damaged")
        for member in archive.namelist():
            name = member.partition("/")[2]  # behind the folder that all of them lie in
            if not (_MEMBERS.fullmatch(name) or _MEMBERS.fullmatch(member)):
                yield f"a member {member}"
            elif member.endswith(".pt") and (why := _pickled(archive.read(member))):
                yield f"{member}, {why}"
            elif member.endswith(".json") and not name.startswith("extra"):
                for found in _in_json(json.loads(archive.read(member))):
                    yield f"{found} in {member}"


def _pickled(data: bytes) -> str | None:
    """Say why torch would not read data without running it; None if it does."""
    try:
        if data:
            torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged pickle raises
        return f"which holds more than tensors ({type(error).__name__})"
    return None


def _in_json(node: Any) -> Iterator[str]:
    if isinstance(node, list):
        for part in node:
            yield from _in_json(part)
    if not isinstance(node, dict):
        return
    for key, value in node.items():
        if key in ("target", "as_operator") and isinstance(value, str) and not _OPERATORS.fullmatch(value):
            yield f"an operator {value}"
        elif key == "expr_str" and not (isinstance(value, str) and _is_size(value)):
            yield f"an expression {value}"
        elif key == "use_pickle" and value:
            yield "weights as objects"
        else:
            yield from _in_json(value)


def _is_size(text: str) -> bool:
    """Tell whether an expression is one of sizes: numbers, symbols, arithmetic and functions of them."""
    try:
        nodes = list(ast.walk(ast.parse(text, mode="eval")))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return all(map(_is_arithmetic, nodes))


def _is_arithmetic(node: ast.AST) -> bool:
    if isinstance(node, ast.Constant):
        return isinstance(node.value, int | float) or (isinstance(node.value, str) and bool(_SYMBOL.fullmatch(node.value)))
    if isinstance(node, ast.Call):
        called = isinstance(node.func, ast.Name) and bool(_FUNCTIONS.fullmatch(node.func.id))
        return called and not ("Pow" in ast.dump(node.func) and any(map(_is_high, node.args[1:])))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
        return not _is_high(node.right)
    return isinstance(node, _EXPRESSION) and not (isinstance(node, ast.Name) and not _SYMBOL.fullmatch(node.id))


def _is_high(power: ast.AST) -> bool:
    numbers = [node.value for node in ast.walk(power) if isinstance(node, ast.Constant)]
    return any(isinstance(value, int | float) and abs(value) > _HIGHEST for value in numbers)
