#pragma once
// The watchdogs' messages, and how structs become JSON in them.
//   to rank 0       hello {token, rank, process, port}, state, facts {facts}, failed {failure}, goodbye
//   from rank 0     welcome, joined {members}, state, agreed
//   between others  ask -> alive                  (only once rank 0 is lost)
//   from the one that ends the job, to all  end {code, kill}; to its witness end {code, kill, text},
//                    then said, or from the witness, if that takes too long, spoken
// Those that open a connection carry the job's token, so that strangers are told from ranks.
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "comm/activity.h"
#include "job/control_channel.h"
#include "job/process_identity.h"
#include "job/watchdog.h"

namespace speedrun {

// A rank, and where its watchdog listens.
struct Member {
    ProcessIdentity process;
    Address address;
};

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(ProcessIdentity, host, machine, pid, started)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Address, ip, port)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Member, process, address)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(RankState, step, begun, what, inside, for_s)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Failure, rank, exit_code, label, text)

inline ControlMessage message(const char* kind) {
    return {{"kind", kind}};
}
template <typename Value>
ControlMessage message(const char* kind, const char* key, const Value& value) {
    return {{"kind", kind}, {key, value}};
}

}  // namespace speedrun
