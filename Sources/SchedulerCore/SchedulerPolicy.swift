import JobModel

/// The numbers that the scheduler decides by.
package struct SchedulerPolicy: Sendable {
    /// A card that was not heard of for this long is gone.
    package var heartbeatTTL = Duration.seconds(15)
    /// Readings older than this count as stale.
    package var metricsTTL = Duration.seconds(15)
    /// Degrees Celsius above which a card gets no job; it gets some again ``coolDown`` degrees lower.
    package var maxTemperature = 78.0
    package var coolDown = 10.0
    /// What is taken off the score of a card whose cache has all that a job reads; of one that has a part, that part.
    package var cacheBonus = 20.0
    /// A card that is busier than this, without a job of ours, gets none.
    package var maxBusyPercent = 95.0
    /// Defaults for tasks that do not say.
    package var limits = JobLimits(timeout: .seconds(3600), maxRetries: 2, retryBackoff: .seconds(1), maxWait: nil)
    /// Waiting jobs above which no submission is admitted.
    package var maxQueue = 1_000_000
    /// Jobs of one submitter that have not ended, above which its next submission is refused; 0 for no limit.
    package var maxJobsPerSubmitter = 0
    /// How long a dispatched attempt may stay unclaimed.
    package var claimTimeout = Duration.seconds(30)
    /// How often the attempts of one job may be lost before it fails.
    package var maxLost = 10
    /// Submissions older than this are refused, since their id may have been used and forgotten.
    package var idHorizon = Duration.seconds(7 * 24 * 3600)
    /// How long the records of ended jobs are kept; not under ``idHorizon``.
    package var keepDoneFor = Duration.seconds(30 * 24 * 3600)
    /// How many of them are kept; above that the oldest go once they are older than ``idHorizon``.
    package var keepDone = 1_000_000
    /// Part of the records' stream that may be filled before no more submissions are admitted: the rest is for the
    /// jobs that are there already, whose records grow as they go on.
    package var storeHighWater = 0.8
    /// How long the worker that ended a job has to publish its result before the leader does.
    package var resultGrace = Duration.seconds(10)
    /// How long a result event must have been stored before its leader relies on it: by then a server that syncs its
    /// files every two minutes has it on the disk, and a power cut does not take it.
    package var resultsLag = Duration.seconds(150)
    /// How long jobs wait without any card that may take them before their records say so.
    package var waitingGrace = Duration.seconds(2)
    /// Jobs of a card that on average ran shorter than this make the next ones be dispatched ahead.
    package var shortJob = Duration.seconds(1)
    /// A timer that fires this much late tells that the process was stalled.
    package var stall = Duration.seconds(1)
    /// Submissions that may be pulled and not yet settled.
    package var admissionWindow = 512
    /// A quarantined card is probed this long after its first strike; the wait doubles with each further one.
    package var firstProbe = Duration.seconds(30)
    package var longestProbePause = Duration.seconds(3600)
    /// How many percent of the cards may be quarantined for failures at once, one at least; 0 quarantines none for that.
    package var quarantineMax = 25
    /// How long a retry leaves the card alone that its last attempt failed on, while another one may take it.
    package var avoidance = Duration.seconds(30)
    /// A card that was not heard of for this long leaves the tables, unless something is decided about it.
    package var cardForget = Duration.seconds(86_400)
    /// Cards that may work at once by day and by night; 0 for all.
    package var dayMaxCards = 0
    package var nightMaxCards = 0
    /// Tell each placement in full.
    package var logsDecisions = false
    /// Jobs that have to end well on a card before its probation ends.
    package var probationJobs = 3

    package init() {}

    /// The temperature above which a card gets no job: ours, or its worker's if that is lower.
    func temperatureLimit(of reading: CardReading) -> Double {
        min(maxTemperature, reading.temperatureLimit ?? maxTemperature)
    }

    /// - Parameter strikes: from 1.
    func probePause(strikes: Int) -> Duration {
        min(firstProbe * (1 << min(max(strikes - 1, 0), 30)), longestProbePause)
    }
}
