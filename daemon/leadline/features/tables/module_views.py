"""Which modules there are to fill columns, for whoever wants to use one without having configured it."""

from collections.abc import Iterator, Mapping

from leadline.features.tables.asking import AI_PROMPT, Endpoint
from leadline_protocol.messages import ModuleView


def module_views(endpoints: Mapping[str, Endpoint]) -> list[ModuleView]:
    """The modules of these accounts by name; those that are asked by prompts together are `ai_prompt`."""
    return sorted(_views(endpoints), key=lambda view: view.module)


def _views(endpoints: Mapping[str, Endpoint]) -> Iterator[ModuleView]:
    chats = sorted(name for name, endpoint in endpoints.items() if endpoint.module.chat is not None)
    if chats:
        yield ModuleView(module=AI_PROMPT, inputs=["prompt"], providers=chats)
    for name, endpoint in endpoints.items():
        module = endpoint.module
        if module.chat is None:
            yield ModuleView(
                module=name,
                title=module.title,
                inputs=module.inputs,
                optional_inputs=module.optional_inputs,
                outputs={
                    each: list(output.allowed) if output.allowed else output.type.value
                    for each, output in module.outputs.items()
                },
                credits_per_lead=module.credits_per_lead,
                charge_on=module.charge_on,
            )
