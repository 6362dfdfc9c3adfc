import JobModel
import JobTransport
import SchedulerCore
import ServiceSupport

/// The configuration of maestro: the keys, and what they make together.
struct MaestroSettings: Sendable {
    let settings: Settings
    let names: PoolNames
    let policy: SchedulerPolicy
    let limits: StreamLimits
    let lease: Duration
    let heartbeat: Duration
    let dayWindow: DayWindow
    /// The file that placements are logged in.
    let decisionLog: String?

    static let schema = SettingsSchema(
        defaultFile: "/etc/maestro/maestro.conf",
        fileVariable: "MAESTRO_CONF",
        keys: CommonKeys.all + Keys.scheduling + Keys.cards + Keys.streams
    )

    init(file: String?, overrides: [Settings.Override]) throws(SettingsError) {
        settings = try Settings(schema: Self.schema, file: file, overrides: overrides)
        try settings.checkConnection()
        names = try settings.poolNames()
        policy = Self.policy(settings)
        limits = Self.limits(settings)
        lease = settings.duration(Keys.lease)
        heartbeat = settings.duration(Keys.heartbeat)
        dayWindow = settings[CommonKeys.dayWindow]
        decisionLog = settings[Keys.decisionLog]
    }

    private static func policy(_ settings: Settings) -> SchedulerPolicy {
        var policy = SchedulerPolicy()
        policy.heartbeatTTL = settings.duration(Keys.heartbeatTTL)
        policy.metricsTTL = settings.duration(Keys.metricsTTL)
        policy.maxTemperature = settings[Keys.maxTemperature]
        policy.maxBusyPercent = settings[Keys.maxBusy]
        let wait = settings.duration(Keys.maxWait)
        policy.limits = JobLimits(
            timeout: settings.duration(Keys.defaultTimeout),
            maxRetries: settings[Keys.maxRetries],
            retryBackoff: settings.duration(Keys.retryBackoff),
            maxWait: wait == .zero ? nil : wait
        )
        policy.maxQueue = settings[Keys.maxQueue]
        policy.maxJobsPerSubmitter = settings[Keys.maxJobsPerSubmitter]
        policy.claimTimeout = settings.duration(Keys.claimTimeout)
        policy.maxLost = settings[Keys.maxLost]
        policy.idHorizon = settings.duration(PoolKeys.idHorizon)
        policy.resultGrace = settings.duration(Keys.resultGrace)
        policy.resultsLag = settings.duration(Keys.resultsLag)
        policy.keepDoneFor = max(.seconds(settings[Keys.keepDoneFor] * 3600), policy.idHorizon)
        policy.keepDone = settings[Keys.keepDone]
        policy.quarantineMax = settings[Keys.quarantineMax]
        policy.cardForget = settings.duration(Keys.cardForget)
        policy.dayMaxCards = settings[Keys.dayMaxCards]
        policy.nightMaxCards = settings[Keys.nightMaxCards]
        policy.logsDecisions = settings[Keys.decisionLog] != nil
        return policy
    }

    private static func limits(_ settings: Settings) -> StreamLimits {
        var limits = StreamLimits.standard
        let queue = settings[Keys.maxQueue]
        limits.submissions = queue + queue / 5 + 10_000
        limits.workQueueBytes = settings[Keys.workQueueSize] << 20
        limits.runBytes = settings[Keys.runSize] << 20
        limits.jobsBytes = settings[Keys.jobsSize] << 20
        limits.eventsBytes = settings[Keys.eventsSize] << 20
        limits.logsBytes = settings[Keys.logsSize] << 20
        limits.controlBytes = settings[Keys.controlSize] << 20
        limits.eventsAge = .seconds(settings[Keys.eventsAge] * 3600)
        limits.logsAge = .seconds(settings[Keys.logsAge] * 3600)
        limits.duplicateWindow = settings.duration(Keys.duplicateWindow)
        limits.replicas = settings[Keys.replicas]
        return limits
    }

    enum Keys {
        static let heartbeatTTL = SettingKey<Double>.seconds(
            "HEARTBEAT_TTL_SEC",
            default: 15,
            in: 1...3600,
            help: "a worker not heard of for this long is gone"
        )
        static let metricsTTL = SettingKey<Double>.seconds(
            "METRICS_TTL_SEC",
            default: 15,
            in: 1...3600,
            help: "readings older than this count as stale"
        )
        static let maxTemperature = SettingKey<Double>.number(
            "MAX_TEMP_C",
            default: 78,
            in: 30...110,
            unit: "degrees Celsius",
            help: "a card above this gets no job until it is 10 degrees cooler"
        )
        static let maxBusy = SettingKey<Double>.number(
            "MAX_BUSY_PERCENT",
            default: 95,
            in: 1...100,
            unit: "percent",
            help: "a card busier than this without a job of ours gets none"
        )
        static let defaultTimeout = SettingKey<Double>.seconds(
            "DEFAULT_TIMEOUT_SEC",
            default: 3600,
            in: TaskLimits.timeout,
            help: "how long an attempt may run if its task does not say"
        )
        static let maxRetries = SettingKey<Int>.wholeNumber(
            "MAX_RETRIES",
            default: 2,
            in: TaskLimits.maxRetries,
            help: "how many failed attempts are tried again if the task does not say"
        )
        static let retryBackoff = SettingKey<Double>.seconds(
            "RETRY_BACKOFF_SEC",
            default: 1,
            in: 0...300,
            help: "the wait before the first retry; doubles with each further one"
        )
        static let maxQueue = SettingKey<Int>.wholeNumber(
            "MAX_QUEUE",
            default: 1_000_000,
            in: 1...10_000_000,
            help: "waiting jobs above which no more are admitted"
        )
        static let maxJobsPerSubmitter = SettingKey<Int>.wholeNumber(
            "MAX_JOBS_PER_SUBMITTER",
            default: 0,
            in: 0...10_000_000,
            help: "jobs of one submitter that may wait and run; further ones are refused; 0 is no limit"
        )
        static let maxWait = SettingKey<Double>.seconds(
            "MAX_WAIT_SEC",
            default: 0,
            in: 0...TaskLimits.timeout.upperBound,
            help: "how long a job may wait for a card if its task does not say; 0 is for ever"
        )
        static let claimTimeout = SettingKey<Double>.seconds(
            "CLAIM_TIMEOUT_SEC",
            default: 30,
            in: 1...3600,
            help: "how long a dispatched attempt may stay unclaimed"
        )
        static let maxLost = SettingKey<Int>.wholeNumber(
            "MAX_LOST",
            default: 10,
            in: 0...1000,
            help: "how many attempts of a job may be lost with their workers before it fails"
        )
        static let resultGrace = SettingKey<Double>.seconds(
            "RESULT_GRACE_SEC",
            default: 10,
            in: 1...600,
            help: "how long a worker has to publish a result before maestro does"
        )
        static let resultsLag = SettingKey<Double>.seconds(
            "RESULTS_LAG_SEC",
            default: 150,
            in: 0...3600,
            help: "how long a result must have been stored before it counts as safe from a power cut of the server"
        )
        static let keepDoneFor = SettingKey<Int>.wholeNumber(
            "KEEP_DONE_HOURS",
            default: 720,
            in: 24...87_600,
            help: "how long the records of ended jobs are kept; never under ID_HORIZON_SEC"
        )
        static let keepDone = SettingKey<Int>.wholeNumber(
            "KEEP_DONE_MAX",
            default: 1_000_000,
            in: 0...10_000_000,
            help: "how many of them are kept once they are older than ID_HORIZON_SEC"
        )
        static let lease = SettingKey<Double>.seconds(
            "LEASE_SEC",
            default: 5,
            in: 1...60,
            help: "how long the leader's lease lasts without renewal"
        )
        static let heartbeat = SettingKey<Double>.seconds(
            "HEARTBEAT_SEC",
            default: 5,
            in: 0.5...60,
            help: "how often maestro tells that it lives"
        )

        static let scheduling: [SettingDeclaration] = [
            heartbeatTTL.declaration, metricsTTL.declaration, maxTemperature.declaration, maxBusy.declaration,
            defaultTimeout.declaration, maxRetries.declaration, retryBackoff.declaration, maxQueue.declaration,
            maxJobsPerSubmitter.declaration, maxWait.declaration, claimTimeout.declaration, maxLost.declaration,
            PoolKeys.idHorizon.declaration,
            resultGrace.declaration, resultsLag.declaration, keepDoneFor.declaration, keepDone.declaration,
            lease.declaration,
            heartbeat.declaration,
        ]

        static let quarantineMax = SettingKey<Int>.wholeNumber(
            "QUARANTINE_MAX",
            default: 25,
            in: 0...100,
            help: "percent of the cards, one at least, that may be quarantined at once because jobs failed; 0 for none"
        )
        static let cardForget = SettingKey<Double>.seconds(
            "CARD_FORGET_SEC",
            default: 86_400,
            in: 60...31_622_400,
            help: "a card that was not heard of for this long leaves the tables until it is back"
        )
        static let dayMaxCards = cards("DAY_MAX_CARDS", "by day")
        static let nightMaxCards = cards("NIGHT_MAX_CARDS", "by night")
        static let decisionLog = SettingKey<String?>.optionalPath(
            "DECISION_LOG",
            help: "a file for one line of JSON per placement: the card, and what was known of each"
        )

        static let cards: [SettingDeclaration] = [
            quarantineMax.declaration, cardForget.declaration, CommonKeys.dayWindow.declaration,
            dayMaxCards.declaration, nightMaxCards.declaration, decisionLog.declaration,
        ]

        private static func cards(_ name: String, _ when: String) -> SettingKey<Int> {
            .wholeNumber(name, default: 0, in: 0...4096, help: "how many cards may work at once \(when); 0 for all")
        }

        static let workQueueSize = size("STREAM_WQ_MAX_MB", 1024, "submissions not yet admitted")
        static let runSize = size("STREAM_RUN_MAX_MB", 512, "dispatched attempts")
        static let jobsSize = size("STREAM_JOBS_MAX_MB", 4096, "the jobs' records")
        static let eventsSize = size("STREAM_EVENTS_MAX_MB", 2048, "events")
        static let logsSize = size("STREAM_LOGS_MAX_MB", 2048, "the output of jobs")
        static let controlSize = size("STREAM_CTL_MAX_MB", 64, "leases and registrations")
        static let eventsAge = SettingKey<Int>.wholeNumber(
            "EVENTS_MAX_AGE_HOURS",
            default: 168,
            in: 1...87_600,
            help: "how long events are kept"
        )
        static let logsAge = SettingKey<Int>.wholeNumber(
            "LOGS_MAX_AGE_HOURS",
            default: 168,
            in: 1...87_600,
            help: "how long output is kept on the bus"
        )
        static let duplicateWindow = SettingKey<Double>.seconds(
            "DUPLICATE_WINDOW_SEC",
            default: 120,
            in: 0.1...86_400,
            help: "how long the server tells repeated submissions by itself; maestro does so for ever"
        )
        static let replicas = SettingKey<Int>.wholeNumber(
            "STREAM_REPLICAS",
            default: 1,
            in: 1...5,
            help: "copies of each stream in a cluster of servers (from 2.11)"
        )

        static let streams: [SettingDeclaration] = [
            workQueueSize.declaration, runSize.declaration, jobsSize.declaration, eventsSize.declaration,
            logsSize.declaration, controlSize.declaration, eventsAge.declaration, logsAge.declaration,
            duplicateWindow.declaration, replicas.declaration,
        ]

        private static func size(_ name: String, _ standard: Int, _ what: String) -> SettingKey<Int> {
            .wholeNumber(
                name,
                default: standard,
                in: 1...16_777_216,
                help: "MB that \(what) may take when the stream is made"
            )
        }
    }
}
