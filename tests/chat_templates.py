"""Chat templates of our own that use what the published ones use."""

# Qwen2.5's has the same parts: tools as JSON, calls, and replies of tools that share one turn.
QWEN_TEMPLATE = """\
{%- set turn = '<|im_start|>' %}
{%- set first = messages[0]['content'] if messages[0]['role'] == 'system' else 'Be a test.' %}
{{- turn + 'system\\n' + first }}
{%- if tools %}
    {{- "\\n\\n# Functions\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- '\\n</tools>\\nAnswer as {"name": <name>, "arguments": <object>}' }}
{%- endif %}
{{- '<|im_end|>\\n' }}
{%- for message in messages %}
    {%- if message.role == "user" or (message.role == "system" and not loop.first) %}
        {{- turn + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {{- turn + message.role + ('\\n' + message.content if message.content else '') }}
        {%- for call in message.tool_calls %}
            {%- set call = call.function if call.function is defined else call %}
            {{- '\\n<tool_call>\\n{"name": "' + call.name + '", "arguments": ' }}
            {{- call.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {{- turn + 'user' if messages[loop.index0 - 1].role != "tool" }}
        {{- '\\n<tool_response>\\n' + message.content + '\\n</tool_response>' }}
        {{- '<|im_end|>\\n' if loop.last or messages[loop.index0 + 1].role != "tool" }}
    {%- endif %}
{%- endfor %}
{{- turn + 'assistant\\n' if add_generation_prompt }}
"""
# R1's has a namespace, the tokenizer's own bos_token, and replies without their thoughts.
R1_TEMPLATE = (
    "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}"
    "{% endif %}{% set ns = namespace(system='', tool=false) %}{%- for message in messages %}"
    "{%- if message['role'] == 'system' %}{% set ns.system = message['content'] %}{%- endif %}"
    "{%- endfor %}{{bos_token}}{{ns.system}}{%- for message in messages %}"
    "{%- if message['role'] == 'user' %}{%- set ns.tool = false -%}"
    "{{'<｜User｜>' + message['content']}}{%- endif %}{%- if message['role'] == 'assistant' %}"
    "{% set said = message['content'].split('</think>')[-1] %}{{'<｜Assistant｜>' + said}}"
    "{%- for call in message['tool_calls'] %}{{'\\n' + call['function']['name'] + '\\n'}}"
    "{%- endfor %}{{eos_token}}{%- endif %}{%- if message['role'] == 'tool' %}"
    "{%- set ns.tool = true -%}{{'<|EOT|>' + message['content']}}{%- endif %}{%- endfor -%}"
    "{% if add_generation_prompt and not ns.tool %}{{'<｜Assistant｜><think>\\n'}}{% endif %}"
)
