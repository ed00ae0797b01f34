"""The names of providers that configs may use, supported or not.

Source: the list of valid providers of the Portkey gateway 1.15.2, in its order.
"""

PORTKEY_NAMES = tuple(
    """anthropic anyscale azure-openai cohere google vertex-ai mistral-ai openai palm
    perplexity-ai reka-ai together-ai deepinfra ncompass stability-ai nomic ollama ai21
    bedrock groq segmind jina fireworks-ai workers-ai moonshot openrouter lingyi zhipu
    novita-ai monsterapi deepseek predibase triton voyage azure-ai github deepbricks
    siliconflow huggingface cerebras inference-net sambanova lemonfox-ai upstage lambda
    dashscope x-ai cortex sagemaker nebius recraft-ai milvus replicate portkey lepton
    kluster-ai nscale hyperbolic bytez featherless-ai krutrim qdrant 302ai cometapi
    matterai meshy tripo3d nextbit modal z-ai oracle iointelligence aibadgr ovhcloud
    """.split()
)

# Those of our own: the embedded engine, and what Portkey lacks.
OWN_NAMES = tuple(
    "local vllm sglang llama-cpp tgi lm-studio codestral inception".split()
)

KNOWN_NAMES = PORTKEY_NAMES + OWN_NAMES
