import JobModel
import Testing

@testable import GPUTelemetry

/// What one look after the other says of a card. Limit 94, MAX_TEMP_C 78: stop at 78, end at 89, resume at 74.
struct CardGuardTests {
    private let limits = ThermalLimits(hardware: 94, maximum: 78)

    private func keeper(allowsUnknown: Bool = false) -> CardGuard {
        CardGuard(limits: limits, allowsUnknownTemperature: allowsUnknown, linkBaseline: nil)
    }

    private func at(_ seconds: Double) -> Timestamp { Timestamp(nanoseconds: 0) + .inSeconds(seconds) }

    private func well() -> CardSigns {
        var signs = CardSigns()
        signs.configVendor = 0x1002
        signs.vramLostCounter = 4
        signs.isAccelerationWorking = true
        return signs
    }

    private func lost() -> CardSigns {
        var signs = well()
        signs.nvmlCode = NVMLStatus.gpuIsLost
        return signs
    }

    private func sample(_ temperature: Double?, _ signs: CardSigns? = nil, isAsleep: Bool = false) -> CardSample {
        func silent<Value>(_ fault: SensorFault) -> Reading<Value> { Reading(value: nil, age: nil, fault: fault) }
        return CardSample(
            address: PCIAddress(domain: 0, bus: 3, device: 0, function: 0),
            isAsleep: isAsleep,
            busy: silent(.unsupported),
            temperature: temperature.map { Reading($0) } ?? silent(.timedOut),
            power: silent(.unsupported),
            powerCap: silent(.unsupported),
            fanSpeed: silent(.unsupported),
            fanPercent: silent(.unsupported),
            vram: silent(.unsupported),
            coreClock: silent(.unsupported),
            memoryClock: silent(.unsupported),
            throttling: silent(.unsupported),
            link: silent(.unsupported),
            processes: silent(.unsupported),
            signs: signs.map { Reading($0) } ?? silent(.timedOut),
            errors: [:]
        )
    }

    @Test func aCoolAndHealthyCardIsNotHeld() {
        var keeper = keeper()
        let judged = keeper.judge(sample(60, well()), heard: [], at: at(0))
        #expect(judged.hold == nil && judged.fault == nil && judged.findings.isEmpty && judged.new.isEmpty)
        #expect(judged.temperatureLimit == 78)
    }

    @Test func heatIsHeldByItsName() {
        var keeper = keeper()
        func code(_ temperature: Double?, _ seconds: Double) -> String? {
            keeper.judge(sample(temperature, well()), heard: [], at: at(seconds)).hold?.code
        }
        #expect(code(80, 0) == "hot")
        #expect(code(75, 5) == "cooling")
        #expect(code(nil, 10) == "sensor")
        #expect(code(90, 15) == "hot")
        #expect(code(90, 20) == "hot")
        #expect(code(91, 25) == "overheated")
        #expect(code(70, 30) == "cooling")
        #expect(code(70, 89) == "cooling")
        #expect(code(70, 90) == nil)
    }

    @Test func aSilentSensorHoldsUnlessTheOperatorAllowsIt() {
        var strict = keeper()
        #expect(strict.judge(sample(nil, well()), heard: [], at: at(0)).hold?.code == "sensor")
        var lenient = keeper(allowsUnknown: true)
        #expect(lenient.judge(sample(nil, well()), heard: [], at: at(0)).hold == nil)
    }

    /// Were it held, no job would ever wake it.
    @Test func aSleepingCardMayTakeJobs() {
        var keeper = keeper()
        #expect(keeper.judge(sample(nil, isAsleep: true), heard: [], at: at(0)).hold == nil)
        _ = keeper.judge(sample(80, well()), heard: [], at: at(5))
        let asleep = keeper.judge(sample(nil, isAsleep: true), heard: [], at: at(10))
        #expect(asleep.hold?.code == "cooling")
        #expect(asleep.hold?.reason.contains("asleep") == true)
        #expect(keeper.judge(sample(nil, isAsleep: true), heard: [], at: at(70)).hold == nil)
    }

    @Test func otherLimitsCountFromTheNextLook() {
        var keeper = keeper()
        #expect(keeper.judge(sample(70, well()), heard: [], at: at(0)).hold == nil)
        keeper.setLimits(ThermalLimits(hardware: 94, maximum: 65))
        let held = keeper.judge(sample(70, well()), heard: [], at: at(5))
        #expect(held.hold?.code == "hot" && held.temperatureLimit == 65)
    }

    @Test func sicknessLastsUntilAProbeSucceeds() {
        var keeper = keeper()
        let first = keeper.judge(sample(60, lost()), heard: [], at: at(0))
        #expect(first.hold?.code == "unhealthy" && first.hold?.reason == "NVML 15: GPU is lost")
        #expect(first.new.map(\.reason) == [.lost] && first.fault == nil)
        // It says that it is well again: that has to be tried.
        for second in 1...3 {
            let later = keeper.judge(sample(60, well()), heard: [], at: at(Double(second)))
            #expect(later.hold?.code == "unhealthy")
            #expect(later.findings.map(\.reason) == [.lost] && later.new.isEmpty)
        }
        #expect(keeper.examineProbe(lost())?.reason == .lost)
        #expect(keeper.examineProbe(well()) == nil)
        keeper.recover()
        let recovered = keeper.judge(sample(60, well()), heard: [], at: at(9))
        #expect(recovered.hold == nil && recovered.findings.isEmpty)
    }

    @Test func aFaultThatPassedIsToldOnceAndHoldsNothing() {
        var keeper = keeper()
        _ = keeper.judge(sample(60, well()), heard: [], at: at(0))
        var signs = well()
        signs.vramLostCounter = 5
        let judged = keeper.judge(sample(60, signs), heard: [], at: at(5))
        #expect(judged.hold == nil)
        #expect(judged.fault?.reason == .reset)
        #expect(keeper.judge(sample(60, signs), heard: [], at: at(10)).fault == nil)
    }

    @Test func whatTheKernelSaysCounts() {
        var keeper = keeper()
        let recovered = HealthFinding(.wedged, "WEDGED=none", .probation)
        #expect(keeper.judge(sample(60, well()), heard: [recovered], at: at(0)).fault == recovered)
        // Again, later: another fault.
        #expect(keeper.judge(sample(60, well()), heard: [], at: at(5)).fault == nil)
        #expect(keeper.judge(sample(60, well()), heard: [recovered], at: at(10)).fault == recovered)
        let wedged = HealthFinding(.wedged, "WEDGED=rebind", .quarantine)
        #expect(keeper.judge(sample(60, well()), heard: [wedged], at: at(15)).hold?.code == "unhealthy")
        #expect(keeper.judge(sample(60, well()), heard: [], at: at(20)).findings == [wedged])
    }

    /// Not being able to look is no sickness, and does not heal one.
    @Test func signsThatCannotBeReadChangeNothing() {
        var keeper = keeper()
        #expect(keeper.judge(sample(60), heard: [], at: at(0)).hold == nil)
        _ = keeper.judge(sample(60, lost()), heard: [], at: at(5))
        #expect(keeper.judge(sample(60), heard: [], at: at(10)).hold?.code == "unhealthy")
    }

    /// Heat is no reason to forget sickness, which ends jobs for another reason.
    @Test func sicknessGoesBeforeHeat() {
        var keeper = keeper()
        for second in 0...3 { _ = keeper.judge(sample(92, lost()), heard: [], at: at(Double(second))) }
        #expect(keeper.judge(sample(92, lost()), heard: [], at: at(4)).hold?.code == "unhealthy")
        keeper.recover()
        #expect(keeper.judge(sample(92, well()), heard: [], at: at(5)).hold?.code == "overheated")
    }
}
