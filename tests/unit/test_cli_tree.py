"""The command tree as a user meets it: every verb explains itself, and what its help shows does parse."""

import io
import shlex

import pytest

from novactl.cli.root import NOUNS, root
from novactl.cli.run import perform
from novactl.cli.session import Session
from novactl.cli.tree import split_examples
from novactl.errors import UsageError


def session(argv: list[str]) -> Session:
    return Session(argv, {}, stdin=io.StringIO(), stdout=io.StringIO(), stderr=io.StringIO())


def verbs() -> list[tuple[str, ...]]:
    found = []
    for noun in NOUNS:
        command = root().commands[noun].loaded
        inner = getattr(command, "commands", None)
        found += [(noun,)] if inner is None else [(noun, verb) for verb in inner]
    return found


def parsed(words: list[str]) -> None:
    """Parse a command line down to the verb, running nothing. Raises what Typer raises."""
    context = root().make_context("novactl", list(words), obj=session(words))
    while hasattr(context.command, "commands"):
        rest = [*context._protected_args, *context.args]
        name, command, rest = context.command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)


def help_of(words: tuple[str, ...]) -> str:
    made = session([*words, "--help"])
    out, made_help = made.stdout, io.StringIO()
    import contextlib

    with contextlib.redirect_stdout(made_help):
        assert perform(made, [*words, "--help"]) == 0
    return made_help.getvalue() + out.getvalue()


@pytest.mark.parametrize("words", verbs(), ids=" ".join)
def test_every_verb_has_one_to_three_examples_that_parse(words: tuple[str, ...]) -> None:
    """A verb's help begins with a sentence, then one to three examples, and each example is a valid command line."""
    text = help_of(words)
    assert text[0].isupper() and "Examples:" in text
    command = root().commands[words[0]].loaded
    if len(words) == 2:
        command = command.commands[words[1]].loaded
    _, examples = split_examples(command.help)
    assert 1 <= len(examples) <= 3
    for example in examples:
        if example.startswith("printf"):
            example = example.rpartition("| ")[2]
        argv = shlex.split(example.partition(" > ")[0])
        assert argv[0] == "novactl" and tuple(argv[1:1 + len(words)]) == words
        parsed(argv[1:])


@pytest.mark.parametrize("noun", NOUNS)
def test_the_line_of_a_noun_is_that_of_its_module(noun: str) -> None:
    """What the list of nouns says of a noun is the first line of the noun's own help."""
    assert help_of((noun,)).replace("\n", " ").startswith(NOUNS[noun].line.partition(":")[0].rstrip("."))


def test_the_tree_has_the_commands_promised() -> None:
    """Every noun and verb that was promised is there, and no other."""
    promised = {
        "node": "enroll list show events check set unset enable disable remove fence rotate-key",
        "flavor": "create list show set unset delete",
        "image": "create list show set unset delete", "keypair": "create list show delete",
        "aggregate": "create list show set unset delete add-node remove-node", "zone": "list", "trait": "list", "resource-class": "list",
        "server-group": "create list show delete", "project": "create list show set delete", "quota": "show list set",
        "key": "create list show set revoke rotate",
        "conductor": "run show install uninstall", "db": "upgrade check backup restore rebuild",
        "cluster": "show set verify repair adopt", "scheduler": "list show check", "placement": "explain why-not list export simulate",
        "operation": "list show watch wait resume undo cancel",
        "server": "create list show start stop reboot delete console-log console events why set evacuate adopt",
    }
    expected = {(noun, verb) for noun, names in promised.items() for verb in names.split()}
    alone = ("init", "doctor", "capacity", "events", "version", "batch", "help", "completion")
    assert expected | {(name,) for name in alone} == set(verbs())


@pytest.mark.parametrize(("alias", "verb"), [("server ls", "list"), ("server rm", "delete"), ("node rm", "remove")])
def test_aliases(alias: str, verb: str) -> None:
    """`ls` and `rm` are understood for what the noun calls list, delete or remove."""
    noun, short = alias.split()
    command = root().commands[noun].loaded
    context = command.make_context(noun, [short], obj=session([]), resilient_parsing=True)
    assert command.resolve_command(context, [short])[1].name == verb


def test_no_two_flags_of_a_verb_share_a_letter() -> None:
    """No verb declares a flag twice, with the output options counted in."""
    for words in verbs():
        command = root().commands[words[0]].loaded
        if len(words) == 2:
            command = command.commands[words[1]].loaded
        flags = [flag for param in command.params for flag in (*param.opts, *param.secondary_opts) if flag.startswith("-")]
        assert len(flags) == len(set(flags)), words


@pytest.mark.parametrize(("line", "said"), [
    ("server", ""),
    ("srver list", "Did you mean 'server'"),
    ("server creat x", "Did you mean 'create'"),
    ("server show", "SERVER"),
    ("server list --limit many", "--limit"),
    ("server list --no-such-flag", "--no-such-flag"),
    ("server list --limit 99999999999999999999", "1000000"),
    ("server list --limit 0", "1<=x"),
    ("server show \udcff\udcfe", "'\\xff\\xfe' is not UTF-8"),
    ("server create web1 --flavor f --image i --zone b\udcff", "'b\\xff' is not UTF-8"),
    ("server stop web1 --grace 99999999999999999999h", "365d"),
    ("server stop web1 --grace 366d", "365d"),
    ("server stop web1 --timeout " + "9" * 400, "365d"),
    ("server start web1 --timeout inf", "duration"),
    ("server create web1 --flavor f --image i --timeout nan", "duration"),
    ("server console web1 --linger 1e9", "duration"),
    ("flavor create f --ram " + "9" * 5000, "not a size"),
    ("node enroll root@h --ssh-port 65536", "65535"),
    ("node enroll root@h --agent-port 0", "65535"),
    ("server list -o xml", "json"),
    ("server list -c nmae", "name"),
    ("server list --sort nmae", "name"),
    ("server create web1 --image i", "--flavor"),
    ("flavor create f --ram lots", "lots"),
    ("node enroll", "--local"),
    ("node enroll root@h --local", "--local"),
    ("node enroll root@h --label nonsense", "KEY=VALUE"),
    ("keypair create k --public-key a --private-key b", "exclude"),
    ("completion tcsh", "bash"),
])
def test_bad_command_lines_are_usage_errors(line: str, said: str) -> None:
    """A command line that is not valid exits 2 and says what is wrong, before anything is opened."""
    words = line.split()
    made = session(words)
    try:
        status = perform(made, words)
        text = made.stderr.getvalue()
    except UsageError as error:
        status, text = int(error.exit_status), f"{error.message} {error.hint} {error.command}"
    assert status == 2
    assert said in text
    assert made._cluster is None
