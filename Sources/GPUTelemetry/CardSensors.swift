/// The sensors of one card, each from the source that its driver has.
struct CardSensors: Sendable {
    private let attachment: CardAttachment
    private let signsSensor: SignsSensor
    private let wakefulness: LastFlag
    private let wake: Sensor<Bool>
    private let signs: Sensor<CardSigns>
    private let busy: Sensor<Double>
    private let temperature: Sensor<Double>
    private let power: Sensor<Double>
    private let powerCap: Sensor<Double>
    private let fanSpeed: Sensor<Double>
    private let fanPercent: Sensor<Double>
    private let vram: Sensor<VRAMUse>
    private let coreClock: Sensor<Double>
    private let memoryClock: Sensor<Double>
    private let throttling: Sensor<[ThrottleReason]>
    private let link: Sensor<Card.Link>
    private let processes: Sensor<[ProcessUsage]>

    init(_ card: Card, paths: SystemPaths, watched: WatchedProcesses) {
        let device = paths.pciDevice(card.address)
        let attachment = CardAttachment(card)
        self.attachment = attachment
        let isAsleep = LastFlag()
        wakefulness = isAsleep

        /// Leaves a sleeping card alone: reading would wake it.
        func sensor<Value: Sendable>(
            _ name: String,
            _ read: @escaping @Sendable () throws(SensorFault) -> Value
        ) -> Sensor<Value> {
            Sensor(name) { () throws(SensorFault) in
                if isAsleep.value { throw .asleep }
                return try read()
            }
        }

        let runtimePower = RuntimePower(device)
        wake = Sensor("runtime_status") { () throws(SensorFault) in
            let now = runtimePower.isAsleep
            _ = isAsleep.exchange(now)
            return now
        }
        let signsSensor = SignsSensor(card: card, paths: paths, attachment: attachment)
        self.signsSensor = signsSensor
        signs = sensor("signs") { () throws(SensorFault) in signsSensor.signs() }

        let sysfs = SysfsSensors(device: device, attachment: attachment)
        let nvml = NVMLSensors(attachment: attachment)
        let usesNVML = attachment.usesNVML
        func number(
            _ name: String,
            _ fromSysfs: @escaping @Sendable () throws(SensorFault) -> Double,
            _ fromNVML: @escaping @Sendable () throws(SensorFault) -> Double
        ) -> Sensor<Double> {
            sensor(name, usesNVML ? fromNVML : fromSysfs)
        }
        busy = number("busy", sysfs.busy, nvml.busy)
        temperature = number("temperature", sysfs.temperature, nvml.temperature)
        power = number("power", sysfs.power, nvml.power)
        powerCap = number("power_cap", sysfs.powerCap, nvml.powerCap)
        fanSpeed = number("fan_speed", sysfs.fanSpeed) { () throws(SensorFault) in throw .unsupported }
        fanPercent = number("fan", sysfs.fanPercent, nvml.fanPercent)
        coreClock = number("core_clock", sysfs.coreClock, nvml.coreClock)
        memoryClock = number("memory_clock", sysfs.memoryClock, nvml.memoryClock)
        vram = sensor("vram", usesNVML ? nvml.vram : sysfs.vram)
        link = sensor("link", usesNVML ? nvml.link : sysfs.link)
        throttling = sensor("throttling") { () throws(SensorFault) in
            guard usesNVML else { throw .unsupported }
            return try nvml.throttling()
        }
        let fdinfo = FDInfoReader(paths: paths, address: card.address)
        processes = sensor("processes") { () throws(SensorFault) in
            let pids = watched.now
            guard !pids.isEmpty else { return [] }
            return usesNVML ? try nvml.processes(pids) : fdinfo.usage(of: pids)
        }
    }

    /// In the order in which they are read: whether the card sleeps first, then the driver, and power last, which
    /// may take seconds.
    var jobs: [any LaneJob] {
        [
            wake, signs, temperature, busy, vram, fanSpeed, fanPercent, coreClock, memoryClock, throttling, link,
            processes, powerCap, power,
        ]
    }

    /// Opens the driver anew and looks for signs of sickness; wakes the card, and blocks as long as its driver wants.
    /// - Throws: what the driver says when it refuses to be opened.
    func probe() throws(SensorFault) -> CardSigns {
        try attachment.reattach()
        return signsSensor.signs()
    }

    func sample(of card: Card, at now: ContinuousClock.Instant, maximumAge: Duration) -> CardSample {
        func reading<Value>(_ sensor: Sensor<Value>) -> Reading<Value> {
            sensor.reading(at: now, maximumAge: maximumAge)
        }
        var sample = CardSample(
            address: card.address,
            isAsleep: wakefulness.value,
            busy: reading(busy),
            temperature: reading(temperature),
            power: reading(power),
            powerCap: reading(powerCap),
            fanSpeed: reading(fanSpeed),
            fanPercent: reading(fanPercent),
            vram: reading(vram),
            coreClock: reading(coreClock),
            memoryClock: reading(memoryClock),
            throttling: reading(throttling),
            link: reading(link),
            processes: reading(processes),
            signs: reading(signs),
            errors: errors
        )
        if sample.throttling.fault == SensorFault.unsupported {
            sample.throttling = Self.inferredThrottling(card, sample)
        }
        return sample
    }

    private static func inferredThrottling(_ card: Card, _ sample: CardSample) -> Reading<[ThrottleReason]> {
        guard let busy = sample.busy.fresh, let clock = sample.coreClock.fresh, let most = card.maxCoreClock else {
            return .unsupported
        }
        return Reading(
            ThrottleReason.inferred(
                busy: busy,
                clock: clock,
                maxClock: most,
                temperature: sample.temperature.fresh,
                critical: card.temperatureLimits.critical,
                power: sample.power.fresh,
                cap: sample.powerCap.fresh
            )
        )
    }

    private var errors: [String: [String: Int]] {
        var errors: [String: [String: Int]] = [:]
        func add<Value>(_ sensor: Sensor<Value>) {
            let counts = sensor.errors
            if !counts.isEmpty { errors[sensor.name] = counts }
        }
        add(wake)
        add(signs)
        add(processes)
        add(vram)
        add(link)
        add(throttling)
        for sensor in [busy, temperature, power, powerCap, fanSpeed, fanPercent, coreClock, memoryClock] { add(sensor) }
        return errors
    }
}
