"""Parse YAML into mappings and lists of text, with the line number in every error."""

from pathlib import Path
from typing import Any, cast

import yaml

from mflux_api.errors import InvalidSetting


class _TextLoader(yaml.BaseLoader):
    """Loader that keeps scalars as text, so that the file, environment and command line are validated alike."""

    def load_document(self) -> dict[str, object]:
        node = self.get_single_node()
        if node is None:
            return {}
        if not isinstance(node, yaml.MappingNode):
            raise yaml.MarkedYAMLError(problem="sections with settings are expected", problem_mark=node.start_mark)
        return cast(dict[str, object], self.construct_document(node))

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        found = super().construct_mapping(node, deep)
        if len(found) < len(node.value):
            raise yaml.MarkedYAMLError(problem="a key is given twice below this line", problem_mark=node.start_mark)
        return found


def parse_yaml(text: str, path: Path) -> dict[str, object]:
    """Parse a YAML mapping. `path` is used in error messages. Raises InvalidSetting with the line number."""
    try:
        loader = _TextLoader(text)
    except yaml.reader.ReaderError as error:
        raise _yaml_error(path, text.count("\n", 0, error.position), error.reason) from None
    try:
        return loader.load_document()
    except yaml.MarkedYAMLError as error:
        # str(error) quotes the file, which may contain an API key.
        line = error.problem_mark.line if error.problem_mark else loader.line
        raise _yaml_error(path, line, error.problem or "invalid YAML") from None
    except (ValueError, OverflowError, RecursionError) as error:
        raise _yaml_error(path, loader.line, str(error)) from None


def _yaml_error(path: Path, line: int, problem: str) -> InvalidSetting:
    return InvalidSetting(f"{path}, line {line + 1}: {problem}.", origin=str(path), line=line + 1)
