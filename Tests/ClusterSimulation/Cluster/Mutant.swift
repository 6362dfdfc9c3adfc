/// Each takes one rule of the design away, so that it can be seen whether the simulation would notice.
package enum Mutant: String, Sendable, CaseIterable {
    /// Submit: a client takes what it has sent for accepted.
    case acceptsWithoutAck
    /// Admit: a submission is acknowledged before its record is stored.
    case acksBeforeStored
    /// Place: more is bound to a card than it has slots for.
    case overbooks
    /// Dispatch: a record is moved whatever stands there.
    case writesWithoutExpectation
    /// Dispatch: the run message goes out before the record says so.
    case dispatchesFirst
    /// Claim: a process is started before its claim is stored.
    case startsBeforeTheClaim
    /// Run: the leader closes attempts that their living owner still runs.
    case meddlesWithTheRunning
    /// Finish: reports are not on the disk when the record is moved.
    case losesReports
    /// Finish: a result is published without asking whether there is one.
    case repeatsResults
    /// Lost: workers are called lost before they had their time to be heard.
    case callsLostEarly
    /// Lost: a worker begins while processes of its earlier life still run.
    case leavesEarlierProcesses
    /// Cancel: an attempt is called ended while its process still runs.
    case callsItKilled
    /// Cancel: an unknown job is called cancelled without a record that says so.
    case answersCancelAtOnce
    /// One owner per card: a card is taken over without waiting whether its owner lives.
    case takesCardsOver
    /// Many maestros: the lease is trusted whatever the clock says.
    case ignoresTrust
    /// Removal: records go by their age alone, as a max age on the stream would have it.
    case removesByAge
    /// Claim: a process is started however late its claim was answered.
    case startsOnALateClaim
    /// Partition, continue: a worker goes on with what was given away while it was not heard.
    case keepsWhatWasGivenAway
    /// Partition, fence: nobody ends an attempt whose worker is stopped or dead.
    case watchdogsSleep
    /// Partition, fence: a leader gives a fenced job away as soon as any other.
    case givesFencedJobsAway
    /// Silence: what is not answered counts as refused.
    case takesSilenceForRefusal
    /// Start of a leader: a server that was started again is taken for the one before, streams and all.
    case trustsARestartedServer

    /// The rule of the design that it takes away.
    package var rule: String {
        switch self {
        case .acceptsWithoutAck: "1 submit"
        case .acksBeforeStored: "2 admit"
        case .overbooks: "3 place"
        case .writesWithoutExpectation, .dispatchesFirst: "4 dispatch"
        case .startsBeforeTheClaim, .startsOnALateClaim: "5 claim"
        case .meddlesWithTheRunning: "6 run"
        case .losesReports, .repeatsResults: "7 finish"
        case .callsLostEarly, .leavesEarlierProcesses: "8 lost"
        case .callsItKilled, .answersCancelAtOnce: "9 cancel"
        case .takesCardsOver: "10 one owner per card"
        case .ignoresTrust: "11 many maestros"
        case .removesByAge: "12 removal"
        case .keepsWhatWasGivenAway, .watchdogsSleep, .givesFencedJobsAway: "13 partition"
        case .takesSilenceForRefusal: "an answer that does not come"
        case .trustsARestartedServer: "start of a leader"
        }
    }
}
