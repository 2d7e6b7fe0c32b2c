"""The command line, `python -m pipeline COMMAND`.

Each command imports torch and other large packages when it runs, so that `--help` stays instant.
Bad input ends with exit code 2 and one sentence, never with a traceback.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ..disk import is_full, reason
from ..errors import InputError

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 2 bad input, 130 stopped by Ctrl-C.

    `verify` also returns 1 for a picture that could not be reproduced bit for bit. argv: the
    arguments after `python -m pipeline`; None: sys.argv.
    """
    from .parser import build_parser

    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        args = build_parser(arguments[0] if arguments else None).parse_args(arguments)
        return args.run(args) or 0
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0
    except OSError as error:
        if not is_full(error):
            raise
        print(f"Cannot write {error.filename or 'a file'}: {reason(error)}.", file=sys.stderr)
        return 2
