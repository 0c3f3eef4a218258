"""console.*: the guest's serial line, its log and its live end."""

from nodeagent import wire
from nodeagent.consoles import Session
from nodeagent.refusal import not_found
from nodeagent.wire import ConsoleClosed, ConsoleLog, Nothing


def log(call, args, payload):
    driver = call.agent.driver
    if driver.spec(args.server) is None:
        raise not_found("server", args.server)
    offset, size, data = driver.console_log(args.server, args.offset, args.max_bytes)
    return ConsoleLog(offset, size), data


def open_stream(call, args, payload):
    """Output comes as `progress` payloads (an empty one first, and now and then, to see that the caller is there), as far as
    credit goes: a full window at first, then what `console.credit` gives back. The newest console of a server wins.
    """
    agent = call.agent
    session = Session(
        call.request.id,
        args.server,
        call.caller,
        emit=lambda data: call.emit({}, data),
        end=lambda reason: _end(call, session, reason),
    )
    agent.consoles.add(session)
    call.on_drop = lambda: agent.consoles.drop(session.id)
    try:
        session.console = agent.driver.open_console(args.server, session)
    finally:
        if session.console is None:
            agent.consoles.forget(session)
    call.emit({}, b"")
    session.opened()
    if not call.is_open:                                      # it ended while there was nothing to close yet
        agent.consoles.close(session, "the caller went away")
    return None, None


def _end(call, session: Session, reason: str) -> None:
    call.agent.consoles.forget(session)
    call.finish(wire.RESULT, ConsoleClosed(reason))


def write(call, args, payload):
    """The payload is typed into the guest."""
    session = call.agent.consoles.get(args.console, call.caller)
    if payload and session.console:
        session.console.write(bytes(payload))
    return Nothing(), None


def credit(call, args, payload):
    call.agent.consoles.get(args.console, call.caller).add_credit(args.credit_bytes)
    return Nothing(), None


def close(call, args, payload):
    session = call.agent.consoles.get(args.console, call.caller)
    call.agent.consoles.close(session, "closed")
    return Nothing(), None
