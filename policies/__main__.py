from voicemesh_policies.server import run

run()
