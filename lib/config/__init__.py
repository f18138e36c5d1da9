"""Configuration: the schema of all keys, load_config with its checks, its text forms, and the shared command line."""

from .arguments import CommandLineParser, add_config_arguments, parse_config_arguments
from .describe import describe_schema
from .effective import config_to_dict, diff_configs, dump_config, flatten_config, save_config
from .loader import load_config, update_derived

__all__ = [
    "CommandLineParser",
    "add_config_arguments",
    "config_to_dict",
    "describe_schema",
    "diff_configs",
    "dump_config",
    "flatten_config",
    "load_config",
    "parse_config_arguments",
    "save_config",
    "update_derived",
]
