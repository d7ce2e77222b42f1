"""The policy gate: checks a Pulumi program with a policy pack, and without an engine.

It runs the program of a stack as a preview does, and passes all that the program declares to the
pack, by the protocol by which Pulumi's engine does. It needs no cloud, cluster, network or
credentials, and knows neither this library's components nor its pack: any Pulumi program in Python
and any policy pack in Python will do.

    verdict = check(Project.at(Path.cwd()), "prod", Gate(pack=Path("policies")))
    assert not verdict.refused, verdict.violations
"""
