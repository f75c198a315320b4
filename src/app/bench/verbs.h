#pragma once

namespace speedrun {

// What `speedrun bench` can time; the first argument is the name.
int bench_step(int argc, char** argv);
int bench_ops(int argc, char** argv);
int bench_attention(int argc, char** argv);
int bench_orthogonalize(int argc, char** argv);
int bench_optimizer_step(int argc, char** argv);
// A race of the rules of matrices, restartable.
int bench_optimizers(int argc, char** argv);
// Bytes/s of saving and loading a run's whole state, against those of the disk itself.
int bench_checkpoint(int argc, char** argv);

}  // namespace speedrun
