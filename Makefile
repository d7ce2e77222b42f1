# `make up`, then `make test`: everything else they need, they set up themselves.

PYTHON := .venv/bin/python
ENGINE := .venv-engine/bin/python
LOCAL  := $(PYTHON) -m infra.local

.PHONY: help up test test-fast down status check bench soak schema docs lock
.DEFAULT_GOAL := help

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: .venv/complete ## provision the embedded environment and hear it speak
	@$(LOCAL) up

test: test-fast ## every test, the end-to-end ones on the embedded environment included
	@$(PYTHON) -m tests.tools e2e
	@$(PYTHON) -m pytest tests/e2e

test-fast: .venv/complete .venv-engine/complete ## every test that needs no embedded environment (nor root)
	@$(ENGINE) -m pytest inference_image/tests/glm_tts -n auto --dist=loadfile --no-loadscope-reorder
	@$(PYTHON) -m tests.tools
	@$(PYTHON) -m pytest --ignore=tests/e2e -n auto --dist=loadfile --no-loadscope-reorder

down: .venv/complete ## stop the embedded environment and leave nothing of it behind
	@$(LOCAL) down

status: .venv/complete ## what runs, what it uses, where it listens
	@$(LOCAL) status

check: .venv/complete .venv-engine/complete ## lint, format and types
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m pyright
	@$(PYTHON) -m pyright -p inference_image/pyrightconfig.json

bench: .venv/complete ## measure this machine; prints tables (PARTS=scale: a simulated fleet)
	@$(PYTHON) -m tests.bench $(PARTS)

soak: .venv/complete ## the long forms of the end-to-end tests
	@$(PYTHON) -m tests.tools e2e
	@$(PYTHON) -m pytest tests/e2e --soak

schema: .venv/complete ## accept the public API as it is now: writes schema.json, says what changed
	@$(PYTHON) -m tests.package.public_api

docs: .venv/complete ## write the pages of components and policies from their code
	@$(PYTHON) -m docs.generate

lock: .venv/complete ## recompile the lock files from the pyproject files
	@$(PYTHON) -m uv pip compile -q --no-header --generate-hashes --no-emit-index-url --no-annotate \
	  --extra dev -o requirements.lock pyproject.toml inference_image/pyproject.toml
	@$(PYTHON) -m uv pip compile -q --no-header --generate-hashes --no-emit-index-url --no-annotate \
	  -o inference_image/requirements.lock inference_image/pyproject.toml
	@$(PYTHON) -m uv pip compile -q --no-header --generate-hashes --no-emit-index-url --no-annotate \
	  --extra glm-tts-tests -o requirements-engine.lock inference_image/pyproject.toml
	@$(PYTHON) -m uv pip compile -q --no-header --generate-hashes --no-emit-index-url --no-annotate \
	  --extra glm-tts --extra glm-tts-exact -c requirements-engine.lock \
	  -o inference_image/requirements-glm-tts.lock inference_image/pyproject.toml

# A virtual environment with the locked packages. The mark is made last, so that an interrupted
# installation is begun again.
.venv/complete: requirements.lock pyproject.toml
	@./.ci/python-environment
	@touch $@

.venv-engine/complete: requirements-engine.lock .venv/complete
	@./.ci/engine-environment
	@touch $@
