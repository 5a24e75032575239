"""Model folders as quantisation libraries write them, and what their weights stand for.

    from quantised import quantise_folder
    values = quantise_folder(folder, "nf4")     # in place; {name of a weight: fp32 tensor}

A kind is a row of KINDS: quantization_config, and a function from a weight's name and values to the tensors
that stand for it and their own values. Needs torch, safetensors and bitsandbytes.
"""
import glob, json, os, re
import torch
from safetensors import safe_open
from safetensors.torch import save_file


def bnb4(kind, nested, block=64):
    def quantise(name, w):
        import bitsandbytes.functional as F
        codes, state = F.quantize_4bit(w, blocksize=block, quant_type=kind, compress_statistics=nested)
        tensors = {name: codes}
        tensors.update({f"{name}.{k}": v for k, v in state.as_dict(packed=True).items()})
        absmax = F.dequantize_blockwise(state.absmax, state.state2) + state.offset if nested else state.absmax
        flat = codes.flatten().int()
        code = state.code[torch.stack([flat >> 4, flat & 15], 1)].flatten()[: w.numel()]
        return tensors, (code * absmax.repeat_interleave(block)[: w.numel()]).reshape(w.shape)
    return quantise


def int8(name, w):
    import bitsandbytes.functional as F
    codes, scale, _ = F.int8_vectorwise_quant(w.to(torch.float16))
    module = name.removesuffix(".weight")
    return ({name: codes, f"{module}.SCB": scale, f"{module}.weight_format": torch.tensor(0, dtype=torch.uint8)},
            F.int8_vectorwise_dequant(codes, scale))


def fp8(block, scale_dtype=torch.float32):
    """quant_method fp8; block None: compressed-tensors', a scale a row."""
    def quantise(name, w):
        w = w.float()
        rows, cols = block or (1, w.shape[1])
        down, across = -(-w.shape[0] // rows), -(-w.shape[1] // cols)
        scale = torch.zeros(down, across)
        full = torch.zeros_like(w)
        for i in range(down):
            for j in range(across):
                part = slice(i * rows, (i + 1) * rows), slice(j * cols, (j + 1) * cols)
                scale[i, j] = (w[part].abs().max().clamp(min=1e-12) / 448).to(scale_dtype).float()
                full[part] = scale[i, j]
        codes = (w / full).clamp(-448, 448).to(torch.float8_e4m3fn)
        module = name.removesuffix(".weight")
        suffix = "weight_scale_inv" if block else "weight_scale"
        return {name: codes, f"{module}.{suffix}": scale.to(scale_dtype)}, codes.float() * full
    return quantise


def codes_of(w, group, symmetric):
    """Codes 0..15 (rows, cols), scales and zeros (rows, groups) of groups of columns."""
    parts = w.float().reshape(w.shape[0], -1, group)
    if symmetric:
        scale = (parts.abs().amax(-1) / 7).clamp(min=1e-6)
        zero = torch.full_like(scale, 8)
    else:
        low, high = parts.amin(-1).clamp(max=0), parts.amax(-1).clamp(min=0)
        low[::3] = 0  # so that some zeros are 0
        scale = ((high - low) / 15).clamp(min=1e-6)
        zero = (-low / scale).round().clamp(0, 15)
    scale = scale.half().float()
    codes = (parts / scale[..., None] + zero[..., None]).round().clamp(0, 15)
    return codes.reshape(w.shape).int(), scale, zero.int()


def value_of(codes, scale, zero, groups):
    return (codes - zero[:, groups]).float() * scale[:, groups]


def ct_int4(group, symmetric, packed_zeros=True):
    def quantise(name, w):
        from compressed_tensors.compressors import pack_to_int32, unpack_from_int32
        codes, scale, zero = codes_of(w, group or w.shape[1], symmetric)
        module = name.removesuffix(".weight")
        tensors = {f"{module}.weight_packed": pack_to_int32((codes - 8).to(torch.int8), 4),
                   f"{module}.weight_scale": scale.half(), f"{module}.weight_shape": torch.tensor(w.shape)}
        back = unpack_from_int32(tensors[f"{module}.weight_packed"], 4, w.shape)
        if not symmetric:
            tensors[f"{module}.weight_zero_point"] = (zero - 8).to(torch.int8)
            if packed_zeros:
                tensors[f"{module}.weight_zero_point"] = pack_to_int32((zero - 8).to(torch.int8), 4, packed_dim=0)
        groups = torch.arange(w.shape[1]) // (group or w.shape[1])
        return tensors, (back.float() - (zero - 8)[:, groups].float()) * scale[:, groups]
    return quantise


def words(x, order=range(8)):
    """Eight codes of the last dimension a word."""
    x = x.reshape(*x.shape[:-1], -1, 8).long()
    return wrapped(sum(x[..., c] << (4 * at) for c, at in enumerate(order)))


def wrapped(out):
    out = out & 0xffffffff
    return torch.where(out >= 1 << 31, out - (1 << 32), out).int()


def gptq(group, act_order=False, version=1):
    """As GPTQModel packs: the first version's zeros are less one, of the whole word; as AutoGPTQ, with a bias of zeros."""
    def quantise(name, w):
        groups = torch.arange(w.shape[1]) // group
        if act_order:
            groups = groups[torch.randperm(w.shape[1], generator=torch.Generator().manual_seed(len(name)))]
        by_group = torch.argsort(groups, stable=True)
        codes, scale, zero = codes_of(w[:, by_group], group, False)
        codes = codes[:, torch.argsort(by_group)]
        module = name.removesuffix(".weight")
        # words run down the columns of (cols, rows)
        qweight = words(codes.T.reshape(-1, 8, w.shape[0]).transpose(1, 2)).squeeze(-1)
        return ({f"{module}.qweight": qweight, f"{module}.qzeros": wrapped(words(zero.T).long() - 0x11111111 * version),
                 f"{module}.scales": scale.T.half().contiguous(), f"{module}.g_idx": groups.int(),
                 f"{module}.bias": torch.zeros(w.shape[0]).half()},
                value_of(codes, scale, zero, groups))
    return quantise


def awq(group):
    def quantise(name, w):
        codes, scale, zero = codes_of(w, group, False)
        module = name.removesuffix(".weight")
        order = [0, 4, 1, 5, 2, 6, 3, 7]
        return ({f"{module}.qweight": words(codes.T.contiguous(), order), f"{module}.qzeros": words(zero.T, order),
                 f"{module}.scales": scale.T.half().contiguous()},
                value_of(codes, scale, zero, torch.arange(w.shape[1]) // group))
    return quantise


def ct_config(form, **weights):
    return dict(quant_method="compressed-tensors", format=form, ignore=["lm_head"], quantization_status="compressed",
                config_groups={"group_0": dict(targets=["Linear"], weights=weights)})


def bnb_config(**more):
    return dict(quant_method="bitsandbytes", llm_int8_threshold=6.0, llm_int8_skip_modules=None, **more)


KINDS = {
    "nf4": (bnb_config(load_in_4bit=True, load_in_8bit=False, bnb_4bit_quant_type="nf4",
                       bnb_4bit_use_double_quant=True), bnb4("nf4", True)),
    "fp4": (bnb_config(load_in_4bit=True, load_in_8bit=False, bnb_4bit_quant_type="fp4",
                       bnb_4bit_use_double_quant=False), bnb4("fp4", False, 128)),
    "int8": (bnb_config(load_in_4bit=False, load_in_8bit=True), int8),
    "fp8": (dict(quant_method="fp8", activation_scheme="dynamic", weight_block_size=[16, 24]), fp8((16, 24))),
    "fp8-128": (dict(quant_method="fp8", weight_block_size=[128, 128]), fp8((128, 128), torch.bfloat16)),
    "ct-fp8": (ct_config("float-quantized", num_bits=8, type="float", strategy="channel", symmetric=True),
               fp8(None, torch.bfloat16)),
    "ct-int4": (ct_config("pack-quantized", num_bits=4, type="int", strategy="group", group_size=8,
                          symmetric=True), ct_int4(8, True)),
    "ct-int4-zeros": (ct_config("pack-quantized", num_bits=4, type="int", strategy="channel", symmetric=False),
                      ct_int4(None, False)),
    "ct-int4-early": (ct_config("pack-quantized", num_bits=4, type="int", strategy="group", group_size=8,
                                symmetric=False), ct_int4(8, False, packed_zeros=False)),
    "gptq": (dict(quant_method="gptq", bits=4, group_size=8, desc_act=False, sym=False), gptq(8)),
    "gptq-order": (dict(quant_method="gptq", bits=4, group_size=16, desc_act=True, checkpoint_format="gptq_v2"),
                   gptq(16, True, 0)),
    "awq": (dict(quant_method="awq", bits=4, group_size=16, zero_point=True, version="gemm"), awq(16)),
}


def is_linear(name, w):
    layers = any(p in name for p in (".layers.", ".h.", "transformer.blocks"))
    return layers and name.endswith(".weight") and w.ndim == 2


def read_folder(folder):
    tensors = {}
    for path in sorted(glob.glob(f"{folder}/*.safetensors")):
        if os.path.basename(path).startswith("model"):
            with safe_open(path, "pt") as f:
                tensors.update({k: f.get_tensor(k) for k in f.keys()})
    return tensors


def quantise_folder(folder, kind, skip=()):
    """Rewrites the weights of the folder, and its config.json."""
    config, quantise = KINDS[kind]
    out, values = {}, {}
    for name, w in read_folder(folder).items():
        if is_linear(name, w) and not any(s in name for s in skip):
            tensors, values[name] = quantise(name, w)
            out.update(tensors)
        else:
            out[name] = w
    for path in glob.glob(f"{folder}/model*.safetensors*"):
        os.remove(path)
    save_file({k: v.contiguous() for k, v in out.items()}, f"{folder}/model.safetensors", {"format": "pt"})
    path = f"{folder}/config.json"
    said = json.load(open(path))
    said["quantization_config"] = config
    json.dump(said, open(path, "w"), indent=2)
    return values


def with_experts(values):
    """Values of experts one by one as the parameters that transformers makes of them."""
    out, found = dict(values), {}
    for name in [k for k in values if ".experts." in k]:
        layer, number, part = re.fullmatch(r"(.*\.experts)\.(\d+)\.(\w+)\.weight", name).groups()
        found.setdefault(layer, {})[int(number), {"w1": "gate_proj", "w3": "up_proj", "w2": "down_proj"}.get(part, part)] = out.pop(name)
    for layer, parts in found.items():
        count, to = 1 + max(i for i, _ in parts), layer.replace("block_sparse_moe", "mlp")
        out[f"{to}.gate_up_proj"] = torch.stack([torch.cat([parts[i, "gate_proj"], parts[i, "up_proj"]]) for i in range(count)])
        out[f"{to}.down_proj"] = torch.stack([parts[i, "down_proj"] for i in range(count)])
    return out


def plain_value(kind, name, w):
    return KINDS[kind][1](name, w)[1]


def plain_values(folder, kind):
    """What the folder's linear weights would stand for, quantised; the folder is left alone."""
    return {name: plain_value(kind, name, w) for name, w in read_folder(folder).items() if is_linear(name, w)}


def mxfp4(w):
    """Matrices (experts, out, in) in blocks of 32: codes and scales as gpt-oss stores them, and their values."""
    table = torch.tensor([0, .5, 1, 1.5, 2, 3, 4, 6, -0., -.5, -1, -1.5, -2, -3, -4, -6])
    b = w.reshape(*w.shape[:2], -1, 32).float()
    exponent = torch.floor(torch.log2(b.abs().amax(-1, keepdim=True).clamp(min=1e-30))) - 2
    codes = (b[..., None] / 2.0 ** exponent[..., None] - table).abs().argmin(-1)
    values = (table[codes] * 2.0 ** exponent).reshape(w.shape)
    blocks = (codes[..., ::2] | codes[..., 1::2] << 4).to(torch.uint8)
    return blocks, (exponent[..., 0] + 127).to(torch.uint8), values


def mxfp4_folder(folder):
    """Puts the experts of a gpt-oss folder into MXFP4; what they stand for, by name, as (experts, out, in)."""
    tensors, values = read_folder(folder), {}
    for name in [k for k, w in tensors.items() if w.ndim == 3]:
        blocks, scales, values[name] = mxfp4(tensors.pop(name).transpose(1, 2).contiguous())
        tensors[name + "_blocks"], tensors[name + "_scales"] = blocks, scales
    save_file(tensors, f"{folder}/model.safetensors", metadata={"format": "pt"})
    return values


# --- GGUF ---

# llama.cpp's keys behind the architecture's name, and transformers'
GGUF_KEYS = {
    "context_length": "max_position_embeddings", "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers", "feed_forward_length": ("intermediate_size", "ffn_hidden_size"),
    "attention.head_count": "num_attention_heads", "attention.head_count_kv": ("num_key_value_heads", "num_kv_heads"),
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "attention.layer_norm_epsilon": ("norm_epsilon", "layer_norm_eps", "layer_norm_epsilon"),
    "attention.key_length": "head_dim", "attention.sliding_window": "sliding_window",
    "rope.freq_base": "rope_theta", "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping", "logit_scale": ("logits_scaling", "logit_scale"),
    "embedding_scale": "embedding_multiplier", "residual_scale": "residual_multiplier",
    "attention.scale": "attention_multiplier", "rope.scaling.factor": "factor",
    "rope.scaling.original_context_length": "original_max_position_embeddings",
    "rope.scaling.yarn_beta_fast": "beta_fast", "rope.scaling.yarn_beta_slow": "beta_slow",
    "rope.scaling.yarn_log_multiplier": "mscale_all_dim", "attention.temperature_scale": "llama_4_scaling_beta",
    "expert_count": ("num_experts", "num_local_experts", "n_routed_experts"),
    "expert_used_count": "num_experts_per_tok",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_shared_feed_forward_length": "shared_expert_intermediate_size",
    "expert_shared_count": "n_shared_experts", "leading_dense_block_count": "first_k_dense_replace",
    "expert_weights_scale": "routed_scaling_factor",
}
PERMUTED = ("llama", "mistral3", "smollm3", "granite", "granitemoe", "arcee")


def gguf_name(name, arch, layers):
    import gguf
    kind = next(k for k, v in gguf.MODEL_ARCH_NAMES.items() if v == arch)
    return gguf.get_tensor_name_map(kind, layers).get_name(name, try_suffixes=(".weight", ".bias"))


def row_order(name, arch, config, rows):
    """Row i of the file is row order[i] of the model; None: the same."""
    heads, order = config.num_attention_heads, torch.arange(rows)
    if arch in PERMUTED and ("q_proj" in name or "k_proj" in name):
        of_these = heads if "q_proj" in name else config.num_key_value_heads
        return order.reshape(of_these, 2, -1).swapaxes(1, 2).reshape(-1)
    if arch in ("gptneox", "falcon") and "query_key_value" in name:
        groups = heads if arch == "gptneox" else config.num_kv_heads if config.new_decoder_architecture else 1
        order = order.reshape(groups, heads // groups + 2, -1)
        return torch.cat([part.reshape(-1) for part in (order[:, :-2], order[:, -2], order[:, -1])])
    return None


def to_file(name, w, arch, config):
    """A tensor as llama.cpp's converter lays it."""
    order = row_order(name, arch, config, len(w))
    w = w if order is None else w[order]
    if arch == "gpt2" and w.ndim == 2 and ".c_" in name:
        w = w.T
    return w + 1 if arch.startswith("gemma") and "norm" in name else w


def from_file(name, w, arch, config):
    order = row_order(name, arch, config, len(w))
    w = w if order is None else w[torch.argsort(order)]
    if arch == "gpt2" and w.ndim == 2 and ".c_" in name:
        w = w.T
    return w - 1 if arch.startswith("gemma") and "norm" in name else w


def write_gguf(path, model, arch, kind, factors=None):
    """The model as one file, its matrices as `kind` where their width allows; {name: what they stand for}."""
    import gguf, numpy
    config = getattr(model.config, "text_config", model.config)
    said = dict(config.to_dict(), **(getattr(config, "rope_parameters", None) or {}))
    said.update({name: getattr(config, name) for name in config.attribute_map})
    writer = gguf.GGUFWriter(path, arch)
    writer.add_string("general.source.huggingface.repository", "org/tiny")
    for key, names in GGUF_KEYS.items():
        for name in (names,) if isinstance(names, str) else names:
            value = said.get(name)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                continue
            value += arch == "glm4moe" and key == "block_count"  # with the layer that guesses further tokens
            (writer.add_uint32 if isinstance(value, int) else writer.add_float32)(f"{arch}.{key}", value)
            break
    if arch == "gptneox":
        writer.add_parallel_residual(config.use_parallel_residual)
    if arch == "glm4moe":
        writer.add_bool(f"{arch}.expert_weights_norm", config.norm_topk_prob)
        writer.add_uint32(f"{arch}.nextn_predict_layers", 1)
        for name in ("nextn.enorm", "attn_norm"):
            writer.add_tensor(f"blk.{config.num_hidden_layers}.{name}.weight", numpy.ones(config.hidden_size, numpy.float32))
    if said.get("rope_type") in ("linear", "yarn"):
        writer.add_string(f"{arch}.rope.scaling.type", said["rope_type"])
    if arch == "olmo2" and said.get("sliding_window"):
        writer.add_array(f"{arch}.attention.sliding_window_pattern",
                         [layer == "sliding_attention" for layer in said["layer_types"]])
    head = said.get("head_dim") or config.hidden_size // config.num_attention_heads
    writer.add_uint32(f"{arch}.rope.dimension_count", int(head * said.get("partial_rotary_factor", 1.0)))
    writer.add_tokenizer_model("gpt2"), writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([chr(256 + i) for i in range(config.vocab_size - 1)] + [chr(256) + chr(257)])
    writer.add_token_types([1] * config.vocab_size), writer.add_token_merges([f"{chr(256)} {chr(257)}"])
    if factors is not None:
        writer.add_tensor("rope_freqs.weight", numpy.array(factors, numpy.float32))
    values, wanted = {}, gguf.GGMLQuantizationType[kind]
    state = dict(model.state_dict())
    fused = [name for name in state if name.endswith("experts.gate_up_proj")]
    by_turns = arch == "gpt-oss"  # whose matrices are (in, out), gates and ups by turns
    for name in fused:  # the file has gates and ups apart
        both, down = state.pop(name), state.pop(name.replace("gate_up", "down"))
        if by_turns:
            bias, both, down = state.pop(name + "_bias"), both.transpose(1, 2), down.transpose(1, 2)
            state[name[:-12] + "gate_proj.bias"], state[name[:-12] + "up_proj.bias"] = bias[:, ::2], bias[:, 1::2]
            state[name[:-12] + "down_proj.bias"] = state.pop(name.replace("gate_up", "down") + "_bias")
        halves = (both[:, ::2], both[:, 1::2]) if by_turns else both.chunk(2, 1)
        state[name[:-12] + "gate_proj.weight"], state[name[:-12] + "up_proj.weight"] = halves
        state[name[:-12] + "down_proj.weight"] = down
    for name, w in state.items():
        known = name  # as the gguf package knows it
        for ours, theirs in (("model.language_model.", "model."), ("correction_bias", "correction.bias"),
                             ("block_sparse_moe.experts", "mlp.experts"),
                             ("moe.router.weight", "moe.router.layer.weight")):
            known = known.replace(ours, theirs)
        own = gguf_name(known, arch, config.num_hidden_layers)
        own = own + ".weight" if own and own.endswith("attn_sinks") else own
        if name == "lm_head.weight" and model.config.tie_word_embeddings or ".visual." in name:
            continue
        assert own, name
        data = to_file(name, w.float(), arch, config).contiguous().numpy()
        if own.endswith("ffn_gate_inp_shexp.weight"):
            data = data[0]
        if data.ndim > 1 and "ffn_gate_inp" not in own and not own.endswith(".bias") and data.shape[-1] % gguf.GGML_QUANT_SIZES[wanted][0] == 0:
            blocks = gguf.quantize(data, wanted)
            writer.add_tensor(own, blocks, raw_dtype=wanted)
            value = torch.from_numpy(gguf.dequantize(blocks, wanted).astype(numpy.float32)).reshape(data.shape)
            values[name] = from_file(name, value, arch, config)
        else:
            writer.add_tensor(own, data)
    writer.write_header_to_file(), writer.write_kv_data_to_file(), writer.write_tensors_to_file()
    writer.close()
    for name in fused:
        gate, up = (values.pop(f"{name[:-12]}{part}_proj.weight") for part in ("gate", "up"))
        both = torch.stack([gate, up], 2).flatten(1, 2) if by_turns else torch.cat([gate, up], 1)
        down = values.pop(name[:-12] + "down_proj.weight")
        values[name] = both.transpose(1, 2) if by_turns else both
        values[name.replace("gate_up", "down")] = down.transpose(1, 2) if by_turns else down
    return values
