import FakeRig
import GPUTelemetry
import JobModel
import Testing

struct ThermalPolicyTests {
    /// Limit 94 (an RX 580), MAX_TEMP_C 78: stop at 78, end at 89, resume at 74.
    let limits = ThermalLimits(hardware: 94, maximum: 78)

    private func at(_ seconds: Double) -> Timestamp { Timestamp(nanoseconds: 0) + .inSeconds(seconds) }

    @Test func limitsComeFromTheCardAndTheOperator() {
        #expect((limits.stopPlacing, limits.endJob, limits.resume) == (78, 89, 74))
        let own = ThermalLimits(hardware: 80, maximum: 78)
        #expect((own.stopPlacing, own.endJob, own.resume) == (70, 75, 60))
        let strict = ThermalLimits(hardware: 94, maximum: 60)
        #expect((strict.stopPlacing, strict.endJob, strict.resume) == (60, 89, 57))
        #expect(ThermalLimits(hardware: 511, maximum: 200).hardware == 110)
        #expect(ThermalLimits(hardware: 3, maximum: 78).hardware == 60)
        #expect(ThermalLimits(hardware: nil, maximum: 78).hardware == 90)
    }

    @Test func placingStopsAtTheLimitAndResumesAfterAMinuteOfBeingCool() {
        var policy = ThermalPolicy(limits: limits)
        #expect(policy.observe(77.9, at: at(0)) == .place)
        #expect(policy.observe(78, at: at(5)) == .hold(.hot(temperature: 78, limit: 78)))
        #expect(policy.observe(75, at: at(10)) == .hold(.cooling(temperature: 75, resumesAt: 74)))
        #expect(policy.observe(74, at: at(15)) == .hold(.cooling(temperature: 74, resumesAt: 74)))
        #expect(policy.observe(70, at: at(74)) == .hold(.cooling(temperature: 70, resumesAt: 74)))
        #expect(policy.observe(70, at: at(75)) == .place)
    }

    @Test func beingCoolHasToBeHeld() {
        var policy = ThermalPolicy(limits: limits)
        _ = policy.observe(80, at: at(0))
        _ = policy.observe(70, at: at(10))
        _ = policy.observe(75, at: at(60))
        #expect(policy.observe(70, at: at(71)) != .place)
        #expect(policy.observe(70, at: at(130)) != .place)
        #expect(policy.observe(70, at: at(131)) == .place)
    }

    @Test func aJobEndsAfterThreeSamplesInARow() {
        var policy = ThermalPolicy(limits: limits)
        let hot = ThermalPolicy.Verdict.hold(.hot(temperature: 89, limit: 78))
        #expect(policy.observe(89, at: at(0)) == hot)
        #expect(policy.observe(89, at: at(5)) == hot)
        #expect(policy.observe(88, at: at(10)) == .hold(.hot(temperature: 88, limit: 78)))
        #expect(policy.observe(89, at: at(15)) == hot)
        #expect(policy.observe(89, at: at(20)) == hot)
        #expect(policy.observe(90, at: at(25)) == .endJob(.overheated(temperature: 90, limit: 89)))
        #expect(policy.observe(90, at: at(30)) == .endJob(.overheated(temperature: 90, limit: 89)))
        #expect(policy.observe(85, at: at(35)) == .hold(.hot(temperature: 85, limit: 78)))
    }

    @Test func aSilentSensorIsUnknownNeverCool() {
        var policy = ThermalPolicy(limits: limits)
        #expect(policy.observe(nil, at: at(0)) == .hold(.unknown))
        for impossible in [0, -273, 150, 511, .nan, .infinity] as [Double] {
            #expect(policy.observe(impossible, at: at(1)) == .hold(.unknown))
        }
        #expect(policy.observe(50, at: at(2)) == .place)
        // Silence does not count as being cool.
        _ = policy.observe(80, at: at(3))
        _ = policy.observe(70, at: at(4))
        #expect(policy.observe(nil, at: at(30)) == .hold(.unknown))
        #expect(policy.observe(70, at: at(70)) != .place)
        #expect(policy.observe(70, at: at(130)) == .place)
    }

    @Test func theOperatorMayAllowUnknownButNotHot() {
        var policy = ThermalPolicy(limits: limits, allowsUnknown: true)
        #expect(policy.observe(nil, at: at(0)) == .place)
        _ = policy.observe(80, at: at(1))
        #expect(policy.observe(nil, at: at(2)) == .hold(.unknown))
    }

    @Test func silenceBetweenHotSamplesDoesNotSaveTheJob() {
        var policy = ThermalPolicy(limits: limits)
        _ = policy.observe(90, at: at(0))
        _ = policy.observe(90, at: at(5))
        _ = policy.observe(nil, at: at(10))
        #expect(policy.observe(90, at: at(15)) == .endJob(.overheated(temperature: 90, limit: 89)))
    }

    /// Against a slow model that keeps the whole history.
    @Test(arguments: 0..<20)
    func aRandomWalkKeepsTheRules(seed: UInt64) {
        var generator = SplitMix64(seed: seed)
        var policy = ThermalPolicy(limits: limits)
        var history: [(time: Double, temperature: Double?)] = []
        var temperature = 60.0
        for step in 0..<2000 {
            temperature = min(max(temperature + Double.random(in: -4...4, using: &generator), 40), 99)
            let reading = Double.random(in: 0...1, using: &generator) < 0.02 ? nil : temperature
            history.append((Double(step) * 5, reading))
            let verdict = policy.observe(reading, at: at(Double(step) * 5))
            #expect(isPlaced(verdict) == model(history), "step \(step)")
            let known = history.compactMap(\.temperature).suffix(3)
            let mustEnd = reading != nil && known.count == 3 && known.allSatisfy { $0 >= limits.endJob }
            #expect(isEnded(verdict) == mustEnd, "step \(step)")
        }
    }

    private func isPlaced(_ verdict: ThermalPolicy.Verdict) -> Bool { verdict == .place }

    private func isEnded(_ verdict: ThermalPolicy.Verdict) -> Bool {
        if case .endJob = verdict { return true }
        return false
    }

    /// Placed when the temperature is known and the card was never hot, or since it was hot last there was a minute
    /// in which every sample was cool.
    private func model(_ history: [(time: Double, temperature: Double?)]) -> Bool {
        guard let now = history.last?.temperature, now < limits.stopPlacing else { return false }
        guard let hot = history.lastIndex(where: { $0.temperature.map { $0 >= limits.stopPlacing } ?? false }) else {
            return true
        }
        var coolSince: Double?
        for (time, temperature) in history[(hot + 1)...] {
            guard let temperature, temperature <= limits.resume else {
                coolSince = nil
                continue
            }
            let since = coolSince ?? time
            coolSince = since
            if time - since >= 60 { return true }
        }
        return false
    }
}
