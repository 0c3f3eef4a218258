"""inventory.*: what the node is, has and uses."""


def read(call, args, payload):
    return call.agent.report(max(0.0, args.max_age_s)), None


def watch(call, args, payload):
    """A report now, every `report_interval_s`, and at once when a domain changes state: a wire.Report as each body."""
    call.emit(call.agent.report(call.agent.config.report_interval_s))
    return None, None
