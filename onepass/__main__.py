"""The program: `python -m onepass`, and what the console entry runs."""

from __future__ import annotations

import sys

STUDY_PACKAGES = {"typer", "click", "rich", "matplotlib", "jinja2", "sklearn"}


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0, 2 for a mistake of the user's, 130 for Ctrl-C."""
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in STUDY_PACKAGES:
            raise
        return _fail(f"this command needs the package {package}; install it with pip install 'onepass[study]'", 2)


def _run(arguments: list[str] | None) -> int:
    import typer
    from typer.main import get_command

    import onepass
    from onepass.cli import app
    from onepass.study.errors import Interrupted, StudyError

    given = sys.argv[1:] if arguments is None else arguments
    try:
        code = get_command(app).main(given or ["--help"], prog_name="onepass", standalone_mode=False) or 0
    except (StudyError, onepass.UnknownName) as error:
        return _fail(error, 2)
    except Interrupted as error:
        return _fail(error, 130)
    except typer.Abort:
        return _fail("interrupted", 130)
    except Exception as error:
        # A mistake in the options themselves. Its class lives in click or in typer, by the release of typer.
        format_message = getattr(error, "format_message", None)
        if format_message is None:
            raise
        return _fail(format_message(), 2)
    # Typer makes this code of a Ctrl-C that no command answered, and says nothing.
    return _fail("interrupted", code) if code == 130 else code


def _fail(message: object, code: int) -> int:
    print(f"onepass: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
