# The tests of each room that are labelled slow: whole runs, jobs of several processes, and what measures time.
set(slow_record "RecordAlone.*")
set(slow_comm "Failures.*" "Rendezvous.*" "MakeCommunicator.*" "Nccl.*" "Ranks/Collectives.*")
set(slow_job "JobUnderMpirun.*" "Job.*" "Watchdog.*")
set(slow_ops "DynamicComposition.*")
set(slow_plan "Ranks/PlannedRun.*")
set(slow_train "Record/Ladder.*" "Record/LadderInBf16.*" "Accumulation.*" "Averaging.*" "CapturedSteps.*" "CheckpointThreads.*" "Golden.*" "NonFinite.*"
               "Throughput.*" "Track3*.*")
set(slow_app "AttemptVerb.*" "BenchOpsVerb.*" "BenchStepVerb.*" "FakeGpu.*" "IdleGpu.*" "NodeTimer.*" "PlanVerb.*" "RaceVerb.*"
             "Ranks.*" "Record/LadderRuns.*" "Resume.*" "RowGradients.*" "Session.*" "StepTimer.*" "TrainVerb.*" "Some/RulesOnRanks.*")
# Suites that run in one process, since what takes long is made once for all their tests.
set(together_app Faults)
