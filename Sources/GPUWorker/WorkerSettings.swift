import GPUTelemetry
import JobModel
import ServiceSupport

/// The configuration of one gpu-worker: the keys, and what they make together.
struct WorkerSettings: Sendable {
    let settings: Settings
    let names: PoolNames
    let gpu: GPUID
    /// The N of `gpu-worker@N` on this machine.
    let number: Int

    static let schema = SettingsSchema(
        defaultFile: "/etc/maestro/gpu-worker.conf",
        fileVariable: "GPU_WORKER_CONF",
        keys: CommonKeys.all + Keys.all
    )

    init(file: String?, overrides: [Settings.Override]) throws(SettingsError) {
        settings = try Settings(schema: Self.schema, file: file, overrides: overrides)
        try settings.checkConnection()
        names = try settings.poolNames()
        guard let number = settings[Keys.gpu] else {
            throw SettingsError("GPU_ID is not set: it is the number of the card, from 0 (the N of gpu-worker@N)")
        }
        self.number = number
        let node = settings[Keys.node]
        guard let gpu = GPUID(node: node, number: number) else {
            throw settings.error(Keys.node, "\(node ?? "")-\(number) is too long for a card's id")
        }
        self.gpu = gpu
    }

    /// The card's cache: everything a job may write stands below it.
    var cacheDirectory: String { "\(settings[Keys.mergeRoot])/gpu\(number)" }
    /// The journal and the whole output of this card's attempts.
    var logDirectory: String { "\(settings[Keys.logRoot])/gpu\(number)" }
    /// What the processes of this worker's jobs carry in their environment, so that a later life finds them. The
    /// directory that the worker has locked: no two workers of a machine share one, whatever their pools are called.
    var marker: String { logDirectory }

    enum Keys {
        static let gpu = SettingKey<Int?>(
            "GPU_ID",
            form: "a whole number from 0 to 1023",
            default: nil,
            text: "",
            help: "the number of the card on this machine",
            parse: { text throws(SettingProblem) in
                guard let number = Int(text), (0...1023).contains(number) else {
                    throw SettingProblem("\"\(text.prefix(60))\" is not a whole number from 0 to 1023")
                }
                return number
            }
        )
        static let pins = SettingKey<[String]>.words(
            "GPU_PINS",
            help: "cards with fixed numbers, as N=ADDRESS or N=UUID; the others are numbered by PCI address"
        )
        static let exclude = SettingKey<[String]>.words(
            "GPU_EXCLUDE",
            default: ["integrated"],
            help: "what is no card of the pool: integrated, display, PCI addresses, UUIDs"
        )
        static let node = SettingKey<String?>.optionalText(
            "NODE_NAME",
            form: "a token",
            help: "this machine's name in a pool of many; the card is then <node>-<number>",
            check: { Token.problem(in: $0) }
        )
        static let mergeRoot = SettingKey<String>.path(
            "MERGE_ROOT",
            default: "/srv/gpucache",
            help: "where the caches of the cards are mounted"
        )
        static let baseRoot = SettingKey<String>.path(
            "BASE_ROOT",
            default: "/data/gpucache",
            help: "where the caches are kept on disk"
        )
        static let ramRoot = SettingKey<String>.path(
            "RAM_ROOT",
            default: "/run/gpucache",
            help: "where the worker's lock and the caches' memory stand"
        )
        static let logRoot = SettingKey<String>.path(
            "LOG_ROOT",
            default: "/var/log/gpu-worker",
            help: "where the whole output of attempts is kept"
        )
        static let heartbeat = SettingKey<Double>.seconds(
            "HEARTBEAT_SEC",
            default: 5,
            in: 0.2...60,
            help: "how often the worker tells that it lives"
        )
        static let metrics = SettingKey<Double>.seconds(
            "METRICS_SEC",
            default: 5,
            in: 0.2...300,
            help: "how often the card is measured"
        )
        static let cacheHeartbeat = SettingKey<Double>.seconds(
            "CACHE_HEARTBEAT_SEC",
            default: 15,
            in: 0.2...3600,
            help: "how often the worker tells what its card's cache holds"
        )
        static let tellsCache = SettingKey<Bool>.yesNo(
            "NATS_ENABLE",
            default: true,
            help: "whether the cache is told of on the bus, and may be saved and warmed from there (gpucache.conf)"
        )
        static let heartbeatTTL = SettingKey<Double>.seconds(
            "HEARTBEAT_TTL_SEC",
            default: 15,
            in: 1...3600,
            help: "as maestro has it: another host's worker of this card is gone after that"
        )
        static let timeout = SettingKey<Double>.seconds(
            "TASK_TIMEOUT_DEFAULT",
            default: 3600,
            in: TaskLimits.timeout,
            help: "how long an attempt may run if its record does not say"
        )
        static let slots = SettingKey<Int>.wholeNumber(
            "SLOTS",
            default: 1,
            in: 1...64,
            help: "jobs that may run on the card at once"
        )
        static let maxTemperature = SettingKey<Double>.number(
            "MAX_TEMP_C",
            default: 78,
            in: 30...110,
            unit: "degrees Celsius",
            help: "at this the card takes no new job; lower where the card's own limit is near"
        )
        static let coolFor = SettingKey<Double>.seconds(
            "COOL_SEC",
            default: 60,
            in: 0...3600,
            help: "how long a card that was hot must be cool before it takes jobs again"
        )
        static let dayMaxTemperature = SettingKey<Double?>.optionalNumber(
            "DAY_MAX_TEMP_C",
            in: 30...110,
            unit: "degrees Celsius",
            help: "MAX_TEMP_C by day, where it is another one"
        )
        static let nightMaxTemperature = SettingKey<Double?>.optionalNumber(
            "NIGHT_MAX_TEMP_C",
            in: 30...110,
            unit: "degrees Celsius",
            help: "MAX_TEMP_C by night, where it is another one"
        )
        static let powerCap = SettingKey<Double?>.optionalNumber(
            "POWER_CAP_W",
            in: 1...2000,
            unit: "Watt",
            help: "what the card may draw while this worker runs; put back at its end"
        )
        static let dayPowerCap = SettingKey<Double?>.optionalNumber(
            "DAY_POWER_CAP_W",
            in: 1...2000,
            unit: "Watt",
            help: "POWER_CAP_W by day, where it is another one"
        )
        static let nightPowerCap = SettingKey<Double?>.optionalNumber(
            "NIGHT_POWER_CAP_W",
            in: 1...2000,
            unit: "Watt",
            help: "POWER_CAP_W by night, where it is another one"
        )
        static let performanceLevel = SettingKey<String?>.optionalText(
            "PERF_LEVEL",
            form: "one of \(PowerSettings.levels.joined(separator: " "))",
            help: "amdgpu's power_dpm_force_performance_level while this worker runs; put back at its end",
            check: { level in
                let all = PowerSettings.levels
                return all.contains(level) ? nil : "is not one of \(all.joined(separator: " "))"
            }
        )
        static let allowUnknownTemperature = SettingKey<Bool>.yesNo(
            "ALLOW_UNKNOWN_TEMP",
            default: false,
            help: "whether a card takes jobs whose temperature cannot be read"
        )
        static let probeCommand = SettingKey<String?>.optionalText(
            "PROBE_CMD",
            form: "a shell line",
            help: "run in the card's binding to try a card that was sick; 0 within 60 seconds means that it works"
        )
        static let killGrace = SettingKey<Double>.seconds(
            "KILL_GRACE_SEC",
            default: 5,
            in: 0...600,
            help: "from SIGTERM to SIGKILL when a job is to end"
        )
        static let drain = SettingKey<Double>.seconds(
            "DRAIN_SEC",
            default: 30,
            in: 0...86_400,
            help: "how long running jobs may go on when the worker is told to stop"
        )
        static let allowedDirectories = SettingKey<[String]>.words(
            "ALLOW_CWD",
            help: "absolute directories outside the cache in which a job's cwd may lie",
            check: { $0.hasPrefix("/") ? nil : "is not an absolute path" }
        )
        static let cpuSet = SettingKey<String?>.optionalText(
            "GPU_WORKER_CPUSET",
            form: "processors such as 0-1,3",
            help: "the processors that jobs of this card may use"
        )
        static let jobCgroup = SettingKey<String>.text(
            "JOB_CGROUP",
            default: "auto",
            form: "auto, off, or a directory of a cgroup2 file system that is left to these workers alone",
            help: "where each job gets a cgroup of its own; auto: in the unit's, where it has Delegate=",
            check: { ["auto", "off"].contains($0) || $0.hasPrefix("/") ? nil : "is not auto, off or an absolute path" }
        )
        static let jobUser = SettingKey<String?>.optionalText(
            "JOB_USER",
            form: "a user of this machine other than root",
            help: "whom jobs run as; the worker's own user if not set"
        )
        static let trustedSubmitters = SettingKey<String?>.optionalPath(
            "TRUSTED_SUBMITTERS",
            help: "a file with submitters' public NKeys, one a line; tasks that none of them has signed are rejected"
        )
        static let namespaces = SettingKey<Bool>.yesNo(
            "JOB_NAMESPACES",
            default: true,
            help: "whether jobs may make namespaces (containers) and gain rights by set-user-id programs"
        )
        static let memoryMaximum = SettingKey<Double?>.optionalNumber(
            "JOB_MEMORY_MAX_MB",
            in: 1...16_777_216,
            unit: "MB",
            help: "what a job may use at most; without a memory controller, each process of it"
        )
        static let processMaximum = SettingKey<Double?>.optionalNumber(
            "JOB_PIDS_MAX",
            in: 1...4_194_304,
            unit: "processes and threads",
            help: "how many a job may have at most; only where its cgroup has a pids controller"
        )
        static let logFileSize = SettingKey<Int>.wholeNumber(
            "LOG_FILE_MAX_MB",
            default: 256,
            in: 1...1_048_576,
            help: "MB of each output of an attempt that are kept on disk"
        )
        static let logStreamSize = SettingKey<Int>.wholeNumber(
            "LOG_STREAM_MAX_KB",
            default: 1024,
            in: 0...1_048_576,
            help: "KB of each output of an attempt that are sent to the bus while it runs"
        )
        static let keepAge = SettingKey<Int>.wholeNumber(
            "KEEP_TASKS_HOURS",
            default: 24,
            in: 0...87_600,
            help: "how long directories and output of finished attempts are kept"
        )
        static let keepCount = SettingKey<Int>.wholeNumber(
            "KEEP_TASKS",
            default: 1000,
            in: 0...1_000_000,
            help: "how many of them are kept"
        )
        static let keepSize = SettingKey<Int>.wholeNumber(
            "KEEP_TASKS_MB",
            default: 4096,
            in: 0...16_777_216,
            help: "how many MB of output they may take; the cache keeps a quarter of that"
        )

        static let all: [SettingDeclaration] = [
            gpu.declaration, pins.declaration, exclude.declaration, node.declaration, mergeRoot.declaration,
            baseRoot.declaration, ramRoot.declaration,
            logRoot.declaration, heartbeat.declaration, metrics.declaration,
            cacheHeartbeat.declaration, tellsCache.declaration, heartbeatTTL.declaration,
            timeout.declaration, slots.declaration, maxTemperature.declaration,
            dayMaxTemperature.declaration, nightMaxTemperature.declaration, powerCap.declaration,
            dayPowerCap.declaration, nightPowerCap.declaration, performanceLevel.declaration,
            CommonKeys.dayWindow.declaration,
            coolFor.declaration, allowUnknownTemperature.declaration, probeCommand.declaration, killGrace.declaration,
            drain.declaration,
            allowedDirectories.declaration, cpuSet.declaration, jobCgroup.declaration, jobUser.declaration,
            namespaces.declaration, trustedSubmitters.declaration, memoryMaximum.declaration,
            processMaximum.declaration, logFileSize.declaration, logStreamSize.declaration,
            keepAge.declaration, keepCount.declaration, keepSize.declaration,
        ]
    }
}
