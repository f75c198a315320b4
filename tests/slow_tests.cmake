# The tests of each room that are labelled slow: whole runs, jobs of several processes, and what measures time. They have the
# machine for themselves, but for those in beside_ROOM, which measure nothing and leave a core idle: they run in pairs.
set(slow_record "RecordAlone.*")
set(slow_comm "Failures.*" "Rendezvous.*" "MakeCommunicator.*" "Nccl.*" "Ranks/Collectives.*")
set(slow_job "JobUnderMpirun.*" "Job.*" "Watchdog.*")
set(slow_plan "Ranks/PlannedRun.*")
set(slow_train "NonFinite.*" "CheckpointThreads.*" "Throughput.*")
set(slow_app "AttemptVerb.*" "BenchOpsVerb.*" "BenchStepVerb.*" "NodeTimer.*" "PlanVerb.*" "RaceVerb.*" "Ranks.*" "Record/LadderRuns.*"
             "Resume.*" "RowGradients.*" "Session.*" "StepTimer.*" "TrainVerb.*" "Some/RulesOnRanks.*")
set(beside_ops "DynamicComposition.*")
set(beside_train "Record/Ladder.*" "Record/LadderInBf16.*" "Accumulation.*" "Averaging.*" "CapturedSteps.*" "Golden.*" "Track3*.*")
set(beside_app "FakeGpu.*" "IdleGpu.*")
# Suites that run in one process, since what takes long is made once for all their tests.
set(together_app Faults)
