"""`help` and `completion`."""

from typing import Annotated, Any

import typer

from novactl.cli.session import session_of
from novactl.cli.tree import Noun
from novactl.errors import NotFound, UsageError

NOUN = Noun()
SHELLS = ("bash", "zsh", "fish")


def _topics(incomplete: str) -> list[str]:
    from novactl.cli.root import NOUNS
    from novactl.cli.topics import TOPICS

    return [name for name in (*TOPICS, *NOUNS) if name.startswith(incomplete)]


@NOUN.verb("help")
def help_(
    ctx: typer.Context,
    topic: Annotated[list[str] | None, typer.Argument(
        metavar="[TOPIC|COMMAND]...", show_default=False, autocompletion=_topics,
        help="A topic, or the words of a command.")] = None,
) -> None:
    """Help on a topic or a command; without either, the list of topics.

    novactl help exit-codes
    novactl help server create
    """
    from novactl.cli.topics import TOPICS, index

    session = session_of(ctx)
    if not topic:
        session.stdout.write(ctx.find_root().get_help() + "\n\n" + index())
    elif len(topic) == 1 and topic[0] in TOPICS:
        session.stdout.write(TOPICS[topic[0]].text())
    else:
        session.stdout.write(command_help(ctx.find_root(), topic) + "\n")


def command_help(root: Any, words: list[str]) -> str:
    from difflib import get_close_matches

    from novactl.cli.topics import TOPICS

    context = root
    for done, word in enumerate(words):
        known = getattr(context.command, "commands", {})
        if word not in known:
            similar = get_close_matches(word, [*known, *(TOPICS if not done else ())])
            raise NotFound("topic or command", " ".join(words), similar=similar, command="novactl help")
        _, command, _ = context.command.resolve_command(context, [word])
        context = type(context)(command, info_name=word, parent=context, obj=root.obj)
    return context.get_help()


@NOUN.verb("completion")
def completion(
    ctx: typer.Context,
    shell: Annotated[str, typer.Argument(
        metavar="SHELL", show_default=False, autocompletion=lambda incomplete: [s for s in SHELLS if s.startswith(incomplete)],
        help="bash, zsh or fish.")],
) -> None:
    """Print the completion script of a shell; `novactl --install-completion` installs it.

    novactl completion bash > /etc/bash_completion.d/novactl
    novactl completion zsh > ~/.zfunc/_novactl
    """
    if shell not in SHELLS:
        raise UsageError(f"no completion for shell {shell!r}", hint="one of " + ", ".join(SHELLS))
    from typer.completion import get_completion_script

    from novactl.cli.run import COMPLETE, PROGRAM

    script = get_completion_script(prog_name=PROGRAM, complete_var=COMPLETE, shell=shell)
    session_of(ctx).stdout.write(script + "\n")
