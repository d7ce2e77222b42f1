from voicemesh_policies.pack import run

run()
