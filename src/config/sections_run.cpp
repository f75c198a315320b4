#include "config/sections.h"

namespace speedrun {
namespace {

void visit_mtp(Fields& f, Mtp& mtp) {
    f.numbers({"from", "weights of the next token, the one after it, ..., at step `begin`"}, mtp.from,
              not_negative, {1, most_mtp_targets});
    f.numbers({"to", "the same at step `end`; they change linearly"}, mtp.to, not_negative,
              {1, most_mtp_targets});
    f.number({"begin", "a step, which need not be whole"}, mtp.begin, {0, max_steps});
    f.number({"end", "a step, which need not be whole"}, mtp.end, {0, max_steps});
}

void visit_prefix(Fields& f, PrefixLoss& prefix) {
    f.number({"from", "weight at step `begin`"}, prefix.from, not_negative);
    f.number({"to", "weight at step `end`; it changes linearly"}, prefix.to, not_negative);
    f.number({"begin", "a step, which need not be whole"}, prefix.begin, {0, max_steps});
    f.number({"end", "a step, which need not be whole"}, prefix.end, {0, max_steps});
}

void visit_stage(Fields& f, Stage& stage) {
    f.integer({"start", "first step"}, stage.start, steps_range);
    f.integer({"batch_tokens", "tokens of a step, a multiple of data.rows"}, stage.batch_tokens,
              {1, int64_t{1} << 40});
    f.integer({"max_seq_len", "documents are cut here"}, stage.max_seq_len, positive);
    f.object({"window", "attention windows in blocks of block_size tokens"}, [&](Fields& window) {
        window.integer({"short", "of the layers with window short"}, stage.window_short, {0, 1 << 20});
        window.integer({"long", "of the layers with window long"}, stage.window_long, {1, 1 << 20});
    });
    f.maybe({"mtp", "multi-token prediction: several targets a token; absent: the next token", optional_key},
            stage.mtp, visit_mtp);
    f.maybe({"prefix",
             "prefix-token loss: the longest token that the next token's bytes begin with is a target too; "
             "absent: it is not",
             optional_key},
            stage.prefix, visit_prefix);
}

void visit_lr_stage(Fields& f, LrStage& stage) {
    f.integer({"start", "first step"}, stage.start, steps_range);
    f.number({"mul", "multiplies every learning rate"}, stage.mul, not_negative);
}

void visit_lr(Fields& f, LrSchedule& lr) {
    f.number({"cooldown_frac", "share of scheduled_steps the decay takes"}, lr.cooldown_frac, {0, 1});
    f.integer({"cooldown_start", "first step of the decay, where cooldown_frac is 0; -1: none", optional_key},
              lr.cooldown_start, {-1, max_steps});
    f.number({"exponent", "the decay goes with this power of the steps that are left", optional_key},
             lr.exponent, above_zero);
    f.number({"floor", "scale at the end"}, lr.floor, not_negative);
    f.number({"clamp_x", "step / scheduled_steps is capped here", optional_key}, lr.clamp_x,
             {0, 1, false, true});
    f.objects({"stages", "ascending by start, the first at 0; absent: one with mul 1", optional_key},
              lr.stages, visit_lr_stage);
}

void visit_size(Fields& f, DataConfig::MaxNumDocs::Size& size) {
    f.integer({"tokens", "of the micro-batch"}, size.tokens, positive);
    f.integer({"entries", "of its cu_seqlens"}, size.entries, {2, 1 << 30});
}

}  // namespace

void visit_data(Fields& f, DataConfig& data) {
    f.text({"train", "glob of training shards; relative paths are relative to the working directory"},
           data.train);
    f.text({"val", "glob of validation shards"}, data.val);
    f.integer({"val_tokens", "tokens a validation reads, a multiple of val_micro_batch_tokens"},
              data.val_tokens, {1, int64_t{1} << 40});
    f.integer({"rows",
               "rows of a step's batch, each a micro-batch of batch_tokens / rows tokens; ranks share them"},
              data.rows, {1, 1 << 20});
    f.integer({"val_micro_batch_tokens", "tokens of a validation micro-batch"}, data.val_micro_batch_tokens,
              positive);
    f.integer({"vocab_size", "token ids are below this"}, data.vocab_size, {1, 65536});
    f.integer({"bos_id", "token that begins a document"}, data.bos_id, {0, 65535});
    f.integer({"sequence_tokens",
               "rows are cut from the stream of tokens in sequences of so many, wherever documents begin; 0: "
               "rows are made of documents",
               optional_key},
              data.sequence_tokens, {0, int64_t{1} << 30});
    f.text({"prefix_table",
            "for schedule.stages[].prefix: a folder with GPT-2's vocab.bpe and encoder.json, or a JSON file, "
            "a list with the bytes of each token below bos_id in hexadecimal; absent: none",
            optional_key},
           data.prefix_table);
    f.object({"max_num_docs", "cu_seqlens entries: T / divisor, rounded up to multiple", optional_key},
             [&](Fields& d) {
                 d.integer({"divisor", "tokens a document is expected to have at least", optional_key},
                           data.max_num_docs.divisor, positive);
                 d.integer({"multiple", "the count is rounded up to this", optional_key},
                           data.max_num_docs.multiple, {1, 1 << 20});
                 d.objects({"sizes", "micro-batches with entries of their own; absent: none", optional_key},
                           data.max_num_docs.sizes, visit_size);
             });
}

void visit_objective(Fields& f, ObjectiveConfig& objective) {
    f.choice({"accumulation",
              "when gradients are divided by grad_divisor: once after accumulation, each micro-batch's loss "
              "before "
              "backward, or (sum) only over ranks",
              optional_key},
             objective.accumulation, std::array{"sum_then_divide", "divide_then_sum", "sum"});
    f.number({"grad_divisor", "gradient = sum over the step's tokens / this", optional_key},
             objective.grad_divisor, above_zero);
    f.choice({"mtp_tail",
              "of targets beyond the end of a row, the softmax of the gradient goes without their weight, or "
              "keeps it",
              optional_key},
             objective.mtp_tail, std::array{"drop", "keep_normaliser"});
}

void visit_mlp_numerics(Fields& f, NumericsConfig::Mlp& mlp) {
    constexpr std::array formats{"activations", "fp8"};
    f.object({"up", "relu(x fc)", optional_key}, [&](Fields& up) {
        up.choice({"format", "as the activations, or fp8 (e4m3), scaled by the amax of this very x and fc",
                   optional_key},
                  mlp.up.format, formats);
    });
    f.object({"down", "the product with proj", optional_key}, [&](Fields& down) {
        down.choice(
            {"format",
             "as the activations, or fp8 (e4m3), scaled by the amax of the pass before, and of proj as "
             "it was a step before",
             optional_key},
            mlp.down.format, formats);
        down.number({"act_headroom", "fp8: the activations' amax is taken to be this times the last one",
                     optional_key},
                    mlp.down.act_headroom, above_zero);
        down.number(
            {"weight_headroom", "fp8: proj's amax is taken to be this times the last one", optional_key},
            mlp.down.weight_headroom, above_zero);
        down.integer({"exact_weight_steps", "fp8: proj is scaled by its own amax after the steps before this",
                      optional_key},
                     mlp.down.exact_weight_steps, steps_range);
    });
    f.choice({"save_for_backward",
              "what backward reads of pre = x fc and post = relu(pre)^2: pre_and_post, or post alone, whose "
              "root it takes",
              optional_key},
             mlp.save_for_backward, std::array{"pre_and_post", "post"});
}

void visit_numerics(Fields& f, NumericsConfig& numerics) {
    f.choice({"activations", "dtype of activations and of weights in matmuls", optional_key},
             numerics.activations, dtype_names);
    f.choice({"params", "each parameter in its declared dtype, or all in fp32", optional_key},
             numerics.params, std::array{"declared", "fp32"});
    f.object({"lm_head", "the head's matmul in training", optional_key}, [&](Fields& head) {
        auto& lm_head = numerics.lm_head;
        head.choice({"format", "as the activations, or fp8 (needs a GPU that has it)", optional_key},
                    lm_head.format, std::array{"activations", "fp8"});
        head.number({"x_scale", "fp8: the input is divided by this", optional_key}, lm_head.x_scale,
                    above_zero);
        head.number({"w_scale", "fp8: the weight is divided by this", optional_key}, lm_head.w_scale,
                    above_zero);
        head.number({"grad_scale", "fp8: the gradient is divided by this", optional_key}, lm_head.grad_scale,
                    above_zero);
    });
    f.object({"mlp", "the MLPs' products in training", optional_key},
             [&](Fields& mlp) { visit_mlp_numerics(mlp, numerics.mlp); });
}

void visit_schedule(Fields& f, ScheduleConfig& schedule) {
    f.integer({"scheduled_steps", "steps the learning rate's schedule spans"}, schedule.scheduled_steps,
              {1, max_steps});
    f.integer({"extension_steps", "steps after it; below 0: the run ends so many steps before"},
              schedule.extension_steps, {-max_steps, max_steps});
    f.integer({"block_size", "tokens of a window block"}, schedule.block_size, {1, 1 << 20});
    f.object({"lr", "flat at the stage's mul, then falling to `floor`"},
             [&](Fields& lr) { visit_lr(lr, schedule.lr); });
    f.maybe({"matrix_lr", "the same for matrices; absent: lr serves them too", optional_key},
            schedule.matrix_lr, visit_lr);
    f.objects({"stages", "ascending by start, the first at 0"}, schedule.stages, visit_stage);
    f.integer({"untie_after_step",
               "model.input.token, and its optimizer state, becomes a copy of model.input.tied_to after it; "
               "-1: never, nothing is tied",
               optional_key},
              schedule.untie_after_step, {-1, max_steps});
    f.object(
        {"freeze",
         "parameters that are left alone for some steps from every change of the batch or the long window "
         "on; their gradients are forgotten",
         optional_key},
        [&](Fields& freeze) {
            freeze.texts({"params", "adam's, each in a bucket of its own", optional_key},
                         schedule.freeze.params);
            freeze.integer({"steps", "how long", optional_key}, schedule.freeze.steps, steps_range);
        });
    f.object({"eval", "when and how to validate"}, [&](Fields& eval) {
        eval.integer({"every", "steps; 0: only at the end"}, schedule.eval.every, steps_range);
        eval.number({"late_from", "part of scheduled_steps from which late_every counts", optional_key},
                    schedule.eval.late_from, {0, 1});
        eval.integer({"late_every", "steps, from there on; 0: as before", optional_key},
                     schedule.eval.late_every, steps_range);
        eval.integer({"final_long_window", "long window of the last validation, in blocks"},
                     schedule.eval.final_long_window, {1, 1 << 20});
    });
}

// A second is the least that a busy machine's scheduler does not exceed by itself; above: eleven days.
constexpr NumberRange deadline_range{1, 1e6};

void visit_checkpoint(Fields& f, RuntimeConfig::Checkpoint& checkpoint) {
    f.integer({"every_steps", "0: not by steps", optional_key}, checkpoint.every_steps, steps_range);
    f.number({"every_minutes", "0: not by time", optional_key}, checkpoint.every_minutes, not_negative);
    f.integer({"keep_last", "older ones are removed", optional_key}, checkpoint.keep_last, {1, 1000000});
    f.boolean({"keep_best", "but not the one with the lowest validation loss", optional_key},
              checkpoint.keep_best);
}

void visit_runtime(Fields& f, RuntimeConfig& runtime) {
    f.choice({"device", "auto: a GPU where there is one", optional_key}, runtime.device,
             std::array{"auto", "cpu", "cuda"});
    f.choice({"attention",
              "of a GPU: ATen's flash attention, the same bits each time; flash_atomic or cudnn (Hopper and "
              "later, bf16, heads of 64 or 128): ATen's or cuDNN's with gradients summed by atomic "
              "additions, whose last bits differ from run to run",
              optional_key},
             runtime.attention, std::array{"flash", "flash_atomic", "cudnn"});
    f.integer({"threads", "0: the cores this process may use", optional_key}, runtime.threads, {0, 4096});
    f.integer({"warmup_steps", "untimed steps before the clock starts, all effects undone", optional_key},
              runtime.warmup_steps, steps_range);
    f.seed({"seed", "of the initial weights", optional_key}, runtime.seed);
    f.number({"collective_deadline_s",
              "seconds that ranks wait for one another before the run is ended and the late ones are named",
              optional_key},
             runtime.collective_deadline_s, deadline_range);
    f.choice({"non_finite", "after a loss or gradient that is not finite: end the run, or forget the step",
              optional_key},
             runtime.non_finite, std::array{"stop", "skip"});
    f.boolean({"cuda_graphs",
               "on a GPU: record passes and updates, four warm-up steps of each stage suffice, and launch "
               "each by one call; "
               "results are the same",
               optional_key},
              runtime.cuda_graphs);
    f.boolean({"memory_check", "refuse to start a run that needs more memory than is free", optional_key},
              runtime.memory_check);
    f.object({"checkpoint", "when the run's whole state is saved, besides at a signal", optional_key},
             [&](Fields& s) { visit_checkpoint(s, runtime.checkpoint); });
}

void visit_config(Fields& f, Config& config) {
    f.integer({"record", "number of the record this run repeats; 0: none", optional_key}, config.record,
              {0, 1 << 20});
    f.object({"data", "tokens"}, [&](Fields& s) { visit_data(s, config.data); });
    f.object({"model", "the network, layer by layer"}, [&](Fields& s) { visit_model(s, config.model); });
    f.object({"objective", "how losses become gradients", optional_key},
             [&](Fields& s) { visit_objective(s, config.objective); });
    f.object({"numerics", "precision", optional_key}, [&](Fields& s) { visit_numerics(s, config.numerics); });
    f.object({"optimizer", "update rules and who uses which"},
             [&](Fields& s) { visit_optimizer(s, config.optimizer); });
    f.object({"schedule", "everything that varies by step"},
             [&](Fields& s) { visit_schedule(s, config.schedule); });
    f.object({"runtime", "where and how to run", optional_key},
             [&](Fields& s) { visit_runtime(s, config.runtime); });
}

}  // namespace speedrun
