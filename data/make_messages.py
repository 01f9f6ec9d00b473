"""Writes the bundled messages, `messages/train.csv` and `messages/test.csv`: the same bytes on every run.

    python data/make_messages.py [FOLDER]

A message has one to three sentences and one to three of six labels. Some sentences speak of one topic, some of
two or three at once, and some of none, though they may hold a topic's words ("I am sick of this rain"). Topics
share words, too: one boards a plane, the board of a firm meets, a neck is stiff as a board.

Spam is advertising or fraud, and has the label of what it is about as well. It takes its words from real
messages, among them notices of banks, clinics, schools and employers, so that no single word gives it away:

    My sister won a free upgrade on her flight to Rome.                                    family;travel
    Your free flight to Rome is waiting: click below before the seats are gone.            spam;travel
    Click the link below to choose your seat on the train to Rome on Monday.               travel

A price or a sum makes a message one about money; "free" alone does not. The test part has frames, first names,
cities and firms of its own, some relatives, and some words of every topic that train never shows.
"""

import csv
import random
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

SIZES = {"train": 3000, "test": 1000}
WORDS_MIN, WORDS_MAX, SENTENCES_MAX = 8, 45, 3

# How often each set of labels comes, in percent.
WEIGHTS = """
    work 16, family 12, travel 7, money 6, health 4
    family;work 6.5, family;travel 4, family;health 4, family;money 3, money;work 4
    travel;work 3, health;work 2.5, money;travel 1, health;money 0.8, health;travel 0.7
    family;health;work 2, family;money;work 2, family;travel;work 2, money;travel;work 1.5, family;health;money 1
    family;money;travel 1, family;health;travel 0.7, health;money;work 0.5, health;travel;work 0.3
    money;spam 5.5, health;spam 2.3, spam;travel 2.2, spam;work 1.4
    money;spam;work 1.4, money;spam;travel 1.2, health;money;spam 0.9, family;money;spam 0.9"""
# How often …
JOINT = 0.55  # topics are told in one sentence, where there is one for them
SECOND = 0.3  # a single topic has two sentences
NOTICE = 0.2  # a message is a notice, where there is one for its labels
PREFIXED = 0.25  # a sentence has a greeting or a link before it
ASIDE, END = 0.25, 0.35  # a personal message has one
PUSH, COURTESY = 0.6, 0.4  # spam and a notice have their end

# Frames after their labels, a slash between two. In a frame, [this|that] is a choice and {…} a gap:
#     {kin}, or {elder} {sibling} {child}    a relative; {kin's} {child's} …
#     {he} {his} {him}                       the relative named last
#     {amount} {sum}                         of money, the sum being larger; perhaps a number alone
#     {name} {name's} {doctor} {city} {firm} {day} {month} {time} {hours} {number}
PERSONAL = {
    "train": """
    # work: {name} is on leave until {day}, so please send the [slides|minutes|application] to [me|our office].
    the client wants the [draft|drawings|contract] by {day}, so [send me your part|the whole office stays late].
    the board meeting is held at {time}, and our [project|team|budget plan] is first on the agenda.
    can we swap our [early|late|night] shifts, so that I work on {day} and you on {day}?
    {name} is being transferred to the [sales|design|research] team in {month}.
    we won the contract with {firm}, so [everyone in the office gets cake|the boss gives a speech] at {time}.
    I have an appointment with {firm} at {time}; could you send me the details of [the order|our last offer]?
    urgent: the [server|label printer|big machine] in the [warehouse|office] is down, and {number} orders are waiting.
    our offer to {firm} goes out on {day}, so please check the [wording|dates|pages] once more.
    your desk is free for the [trainee|intern] now that {name} has moved to the {city} branch.
    click on the link below to join the [call|meeting] with {firm} at {time}; the password is as always.
    the deadline for the [tender|report|prototype|application] is {day}, [not {day}|so all of the team stays late].
    who is in charge of the [trainees|interns|loading bay] while {name} is away?
    I got the job at {firm} and start in {month}, as [an engineer|a cook|a programmer]!
    {name} has quit, and half of the [team|department|company] is looking for a new job, too.
    the operation at the [plant|depot] must not stop, so we need two more people with experience on {day}.
    only {name} was there when I unlocked at {time}, and customers were already [waiting|ringing].
    my boss liked the [pitch|prototype] but [wants it shorter|would like another color].
    there is a new ticket about the [booking|login] system: can you fix it before the [launch|demo]?
    may I name you as a reference for the position at {firm}? I have my interview on {day}.
    {name} has been chosen to lead the [project|department], and I [could not be happier|wonder why].
    the staff of the new [factory|shop] has to be trained by {day}, all {number} of them.
    # family: {sibling} turns [thirty|forty] on {day}: have you got a gift for {him}?
    {child} has {his} first [school play|football match|concert] on {day}, and [all of us|the cousins] will come.
    can you pick up {child} from [school|kindergarten|practice] at {time}?
    {elder} asks whether [the kids and I|the cousins|all of us] are coming to lunch on {day}.
    {child} won the [spelling|drawing|swimming] contest and will not let go of the [cup|prize].
    {sibling} and {name} are expecting [a girl|a boy|twins] in {month}!
    family dinner is at our place on {day}, and {elder} brings the [soup|cake].
    {elder} is looking for the album with the [wedding|baby] pictures: [do you have it|who took it]?
    the [kids|little ones] are in bed at last, so [call whenever you like|we can talk now].
    {sibling} got engaged on {day}, and {elder} [cried|danced] for joy.
    {sibling} is keeping a free chair for you at the wedding[|, right next to {elder}].
    we play board games with {child} on {day}: bring the one with the [trains|pirates|bank robbers].
    urgent question from {elder}: who feeds the [cat|hens] on {day}?
    {child} wants one of the free kittens [from the farm|next door], and I said maybe.
    {elder} knows a trick with cards that {child} wants to see [ten|twenty] times a day.
    my parents will have been married for [thirty|forty] years on {day}, so everyone is invited.
    do you remember the [treehouse|swing|kite] that {elder} built for us?
    {child} has done {his} homework and wants [a story|to stay up until midnight|one more glass of milk].
    she has your chin and my eyes, and we call her [Mila|Ida|Rosa].
    {elder} offered to look after {child} on {day}, so we are free in the evening.
    you will soon have a [niece|nephew], but do not tell {elder} yet!
    {child} was chosen for the school [team|choir], and {elder} has told the whole street.
    # health: the doctor says it is only [a cold|a virus|a sprain], but I should [rest|stay in bed] until {day}.
    my [back|knee|shoulder|ankle] [hurts|is sore], so I will [skip the gym|see the doctor] on {day}.
    I have an appointment with the [dentist|eye doctor|physiotherapist] on {day} at {time}.
    my blood pressure is [too high, so I leave out the salt|down again, thanks to the tablets].
    the [treatment|new injection|ointment] helps: I can [climb the stairs|bend my knee|sleep|breathe] without pain.
    I have had a [fever|sore throat|bad cough] since {day}, and not even [tea|honey] helps.
    the results of the [blood test|scan] are back, and [everything is fine|I need more iron].
    I lost my balance on the [ladder|ice] and broke my [wrist|ankle].
    the [nurse|surgeon] changed the bandage and wants to see the [wound|stitches|scar] again on {day}.
    since I quit [sugar|smoking|wine], I have lost [three|five] kilos and slept much better.
    {name} was transferred to another ward and may have visitors from {time}.
    my allergy is back: I sneeze all day, and my eyes are [red|like tomatoes].
    they let me leave the [hospital|clinic] on {day}, with [a cast up to the knee|pills for a week|a sore throat].
    the [vaccination|injection] left my arm sore, but the [fever|headache] is gone.
    I could not keep anything down, not even tea, and now I am as weak as a kitten.
    you can have my crutches for free, now that the foot has healed.
    the clinic had a free slot today, so the [filling|check-up|operation] is behind me.
    I was told to walk [30|45|60] minutes a day and to come back for a check in {month}.
    urgent: are you allergic to [nuts|milk], and does {name} still take those pills?
    I have hardly slept: [every breath hurts|my nose is blocked|the tooth throbs].
    I won a month at the gym, so there are no more excuses for my [knees|back].
    the pharmacy has to order the [drops|cream]; until {day} I try not to scratch the rash.
    # money: the [electricity|water|phone] bill is due on {day}: [have you paid it|can you pay it this time]?
    I transferred {amount} to your account today, so we are even.
    my balance is below zero[| again], and the rent is due on {day}.
    you still owe me {amount} for the [concert|pizza|flowers].
    the tax return has to be in by {day}, and half of the [receipts|statements] are missing.
    the bank offers [two|three] percent on savings, which is better than nothing.
    I won {amount} with a scratch card, so the [pizza|next round] is on me!
    my card was declined at the till: could you lend me {amount} in cash until {day}?
    the insurance has accepted my claim and pays for the [broken window|stolen bike|leak].
    the new account is free, but the credit card costs {amount} a year.
    the shop charged me twice and will not refund the {amount}.
    interest went up, so the mortgage of {sum} costs us more each month.
    let us split the bill [evenly|by what each of us ate], or pay everything with my gift card.
    never type in the wrong PIN three times: the machine kept [my card|both of my cards].
    somebody got hold of my password, so the bank has locked my account.
    the loan of {sum} is paid back, and I have no debts any more!
    I clicked on pay twice, so the shop must return {amount} within {hours} hours.
    never answer if someone writes that your account is locked: they want your password, not to help.
    {name} believed a message about a prize, paid the fee and is {amount} poorer.
    there is nothing left until the first of {month}, so no [pizza|new shoes] for me.
    the garage wants {amount} for the brakes, or I can [sell|keep] the car as it is.
    I cannot afford the [lamp|coat], not even at half price.
    I have put {sum} aside for the flat, and the bank lends me the rest.
    # travel: my flight to {city} leaves on {day} at {time}.
    we board in ten minutes, and I will write again from {city}.
    the train to {city} is full, so we change in {city} and go on by bus.
    the hotel in {city} has lost our booking[, but the hostel still has rooms| of three nights].
    we leave for {city} in {month}: is your passport still valid?
    how was the [trip|flight|tour], and did you see the [castle|old bridge|cathedral] in {city}?
    the transfer from the airport to the [hotel|old town] takes an hour.
    I got a free upgrade and slept on the plane all the way to {city}.
    my suitcase is full, and I have not packed the [boots|tent|towels|camera] for {city} yet.
    {name} won a cruise in a quiz and takes me along: we sail on {day}!
    the [ferry|cable car] only runs until {time}, so we stay another night [in the cabin|by the sea].
    our guide in {city} knows [every church|a story about every door].
    the [beach|harbor|campsite] is empty, the water is warm and [the tent is still dry|breakfast lasts all morning].
    click on the map that I sent you: the green dot is our campsite by the lake.
    urgent: which platform does the night train to {city} leave from?
    I have booked [two beds in the hostel|two seats on the night train|a cabin by the lake] for {day}.
    the visa for my journey came today, so [nothing can stop me|{city} can wait no longer].
    my offer stands: I take you to the airport on {day}, suitcases and all.
    greetings from {city}: [narrow streets|blue sky], good soup and a view over the whole bay.
    we took a wrong turn behind {city} and saw the whole coast, {number} kilometers of it.
    with only an hour to change planes in {city}, I take nothing but [a rucksack|hand luggage].
    check-out is at noon, and the bus to the station stops right outside our room.
    I am still at the baggage claim in {city}, and everyone else is gone.
    # family;health: {elder} has to go to hospital for {his} [hip|heart], but the doctors are hopeful.
    {child} has [a fever|chickenpox] and must stay at home until {day}.
    {elder} forgot {his} tablets again: can you remind {him} tonight?
    {kin's} operation went well, and {he} is already [joking|asking for cake].
    {child} fell off {his} bike and needs [three stitches|a cast].
    can you drive {elder} to {his} appointment with the eye doctor on {day}?
    # family;money: {sibling} lent me {amount}, and I want to pay {him} back by {day}.
    {child} wants more pocket money: {amount} a week! / the fees for {child's} school go up by {amount} a term.
    {elder} has opened a savings account for {child}. / {sibling} cannot pay the rent: can we all put in {amount}?
    {elder} left us {sum}, and {sibling} wants to ask a lawyer.
    # family;travel: {elder} lands at {time}: can you fetch {him} from the airport?
    we take {child} to the [sea|mountains] in {month}, for two weeks in a tent.
    {sibling} won a free upgrade on {his} flight to {city}.
    {child} takes the train to {city} alone for the first time, so please meet {him} on the platform.
    {elder} dreams of seeing {city} once more, so {sibling} has booked a cruise for all of us.
    # family;work: {sibling} got the job at {firm} and [starts on {day}|has to buy a suit]!
    I will miss the meeting on {day}, because {child} has {his} school play.
    {elder} retires from {firm} in {month}, after [thirty|forty] years.
    {child} came to the office with me and [drew on the contract|charmed the whole team].
    who swaps shifts with me on {day}? It is {kin's} birthday.
    {sibling} leads a team of [ten|thirty] at {firm} now, and {elder} tells everyone.
    # health;money: the insurance does not pay for the [crown|new glasses|treatment], so I owe the clinic {amount}.
    the dentist sent me a bill of {amount} for a single filling.
    I pay {amount} a month for the tablets, and my knee still hurts.
    # health;travel: I caught a [stomach bug|cold] on the second day in {city} and saw nothing but the hotel.
    do I need a vaccination for the trip to {city}, or is the old one enough?
    my ears have hurt since the flight from {city}.
    # health;work: I have [a fever|the flu] and will not be at the office until {day}.
    {name} is on sick leave, so I [run the meeting|take the early shift] on {day}.
    ten hours a day at the desk, and now my [neck|back] is stiff as a board.
    may I leave the meeting at {time}? I have an appointment at the dentist's.
    # money;travel: the airline will not refund the {amount} for the cancelled flight.
    the hotel in {city} wants a deposit of {amount} by {day}.
    can we pay by card in {city}, or do we change money at the airport?
    # money;work: my salary for {month} is not in my account yet: has yours come?
    {firm} has still not paid our invoice of {sum}. / my boss agreed to {amount} more a month, from {month}!
    the budget for the project was cut by {sum}, so we cannot hire anyone.
    # travel;work: I am on a business trip to {city} until {day}, so please take my calls.
    the conference is in {city}: shall we fly or take the train?
    I am writing the minutes on the train to {city}, where we meet {firm} at {time}.
    {firm} wants to see the prototype in {city}, so I have booked us two flights for {day}.
    # family;health;money: {kin's} operation costs {amount} more than the insurance pays.
    # family;health;travel: {child} broke {his} arm on the second day of our trip to {city}.
    # family;health;work: I work from home until {day}, because {child} has [a fever|chickenpox].
    # family;money;travel: {elder} pays for the flights to {city} and {sibling} for the hotel, so the meals are on us.
    # family;money;work: {sibling} has got {his} first pay from {firm} and takes us all, even {elder}, out to dinner.
    # family;travel;work: {elder} looks after {child} while I am at the conference in {city}.
    # money;travel;work: the office pays {amount} a night on business trips to {city}, so keep the receipts.""",
    "test": """
    # work: {name} from [purchasing|the legal team] wants two changes in the contract before we sign.
    let us have the [weekly|first] team meeting on {day}, because the client comes at {time}.
    I am off on {day}, and {name} takes over my [tickets|customers] and the late shift.
    the apprentices start on {day}, and there are not enough [desks|helmets|keys] for them.
    after the merger with {firm}, half of [the department|the office] will report to {name}.
    did the board say yes to the new [warehouse|shift plan|logo]?
    the boss offered me the position in {city}, and I must decide within {hours} hours.
    {name} is free for a meeting about your slides at {time}; just click on the calendar below.
    sorry, the [conveyor|crane] has stopped, and the night shift cannot do without me.
    the prize for the best prototype went to {name's} team, so congratulate them today.
    urgent, for the pitch at {time}: which of the two drafts does {firm} want to see?
    you have been chosen to speak for our team: please confirm it to {name} within {hours} hours.
    my leave is approved, so who answers the {number} customers in my mailbox?
    your password for the new system is on your desk: type it in once and then change it.
    # family: my in-laws celebrate their [silver|ruby] wedding in {month}, with a band and all the cousins.
    has {child} told you about {his} new [teacher|school|best friend]?
    {sibling} and I found our old [letters|toys] in the attic: what a trip back to when we were small!
    bedtime was a fight again: {child} wanted one more story, then one more glass of water.
    who sits next to whom at the christening? {elder} would like to know by {day}.
    please call {elder} today, because {he} has not had a message from you since {month}.
    {child} was offered a part in the school play, and we all have to come and clap.
    I won the bet with {sibling} about the baby's name: it is [Theo|Ella|Ava].
    {sibling} leaves home in {month}, and {elder} is already turning the room into a library.
    there will be ten of us at the table on {day} if {sibling} brings the little ones.
    are you free on {day}? {child} turns [five|seven] and has asked for you.
    our youngest has learned to [walk|whistle], and {elder} is proud.
    # health: the surgeon is happy with the scar, and the stitches come out on {day}.
    the headache is back, and the tablets do not help, so I am lying in the dark.
    they kept {name} in hospital overnight, with a drip in the arm.
    the physiotherapist has shown me how to keep my balance on the bad leg.
    I must not eat before the blood test on {day}, so no breakfast for me.
    the doctor prescribed an ointment for the rash; it burns, but it helps against the itch.
    two nights without [a cough|pain], so I am on the mend and out of bed.
    the dentist found [a hole in the tooth, so I am numb now|nothing at all, so I can smile again].
    the ambulance was there in six minutes, and {name} was breathing again.
    I feel dizzy and weak whenever I get out of bed: should I see a doctor?
    the eye clinic offered me a free bed today, so the operation is sooner than I thought.
    no doctor can tell me why my knee hurts, but all of them want me to lose [ten|twenty] pounds.
    the doctor let me try the new drops for free, and the pain is gone without tablets.
    # money: I checked my statement: {amount} went to a shop that I do not know.
    could we pay the plumber in two parts, {amount} now and the rest in {month}?
    the bank turned down my loan, so the flat is gone. / was it you who picked up the check on {day}? What is my share?
    prices are mad: they asked {amount} for a [haircut|pair of socks]! / {name} put {sum} into shares and lost the lot.
    send me your account number again, and you get back the {amount} for the pizza by {day}.
    my pension will be small unless I pay in {amount} more a month.
    the deposit for the flat came back, all but the fee for the cleaning.
    do not click if someone offers you a refund: {name} typed in the card number and lost {sum}.
    I won {amount} in the lottery, and the tax office wants its share.
    we have overdrawn the account, so no [takeaways|new clothes] until {month}.
    the discount is a joke: nobody can afford that sofa, not even at half the price.
    the cash machine is out of order: have you got enough on you for the two of us?
    # travel: the airline has changed our flight: we leave on {day} and change planes in {city}.
    our week in {city} is booked, but we have one free bed: reply with YES if you want it.
    there are still free bunks on the night train to {city}: shall I book two?
    I missed the last ferry and am spending the night at the station in {city}.
    do I need an adapter in {city}, or does the hotel have one in every room?
    our tour of {city} starts at {time} in front of the cathedral; the guide has a red umbrella.
    they opened every suitcase at the airport, so we nearly missed the bus.
    I left my boarding pass in the taxi to the airport, but they let me through the gate.
    {name} was offered a seat at the front of the plane and left me with the crying babies all the way to {city}.
    our room looks out on [the beach|a palm tree], and the breakfast is a feast.
    click on the photo: that is the view from our cabin above {city}.
    the road over the pass is closed, so our bus will not reach {city} before {day}.
    we won two nights in {city} in the raffle and leave on {day}.
    book your rooms in {city} today, because everyone wants to see the carnival.
    # family;health: {sibling} cooks for {elder}, who came home from hospital on {day}.
    {child} is allergic to [milk|eggs] now, so {elder} must bake without.
    {kin's} scan was clear, and we all breathed again.
    # family;money: {elder} has transferred {amount} to each of the grandchildren.
    {sibling} and I cannot agree on who pays the bill for {elder's} party.
    {child} has saved every coin and now wants a bank account like {elder's}.
    # family;travel: {sibling} and the kids are stuck at the airport in {city}.
    {elder} has never flown before, so I sit next to {him} on the plane to {city}.
    # family;work: {child} wants to know what I do all day at the office.
    {elder} has run the [bakery|workshop] for thirty years, and {sibling} takes over as boss in {month}.
    {sibling's} interview at {firm} is on {day}, so cross your fingers.
    # health;money: the clinic charges {amount} a night for a bed by the window.
    I asked the insurance to pay for the hearing aid, but they will not.
    # health;travel: I sprained my ankle on the second day of the tour of {city} and saw nothing but the hotel.
    the doctor will not let me fly until the cough is gone.
    # health;work: {name} fainted in the meeting and is with the company doctor.
    the doctor has signed me off until {day}, so who takes my shifts?
    # money;travel: my card did not work anywhere in {city}, so {name} paid for the hostel.
    I paid {amount} for an extra suitcase on the flight to {city}.
    # money;work: {firm} has paid us for the overtime, together with the salary for {month}.
    the invoice to {firm} is off by {amount}, so we have to send a new one.
    # travel;work: my boss sends me to the fair in {city}, with a flight at {time}.
    the workshop for new staff is in {city}, and we share a bus from the station.
    # family;health;money: {sibling} pays {amount} a month for {elder's} nurse.
    # family;health;travel: {child} was sick all the way on the ferry to {city}.
    # family;health;work: {sibling} has the flu and has missed a week at the office.
    # family;money;travel: {elder} gave us {amount} for the flight to {city} and the hotel.
    # family;money;work: {sibling} leads the team at {firm} now and gets {amount} more a month.
    # family;travel;work: on {day} {sibling} has a flight to {city}, for a job interview with {firm}.
    # health;travel;work: I caught a cold on the business trip to {city}, and my throat is sore.
    # money;travel;work: the boss will not pay back the {amount} for my taxi from the airport to the client.""",
}
NOTICES = {
    "train": """
    # money: your statement for {month} is ready: you find it in the app, under accounts.
    dear customer, we have received your payment of {amount} for {month}.
    your card was used for {amount} today: if that was not you, call the number on the card.
    dear customer, your new card is in the post; remember that we never ask for your PIN.
    # health: your appointment with Dr {doctor} is on {day} at {time}: reply with YES to confirm or NO to cancel.
    your [prescription is|new glasses are] ready; please bring your health card when you come to collect [it|them].
    dear patient, the practice is closed until {day}; if it is urgent, please call Dr {doctor}.
    # travel: your flight to {city} on {day} is delayed and leaves at {time}.
    dear guest, your room in {city} is booked from {day}; you can cancel for free within {hours} hours.
    click the link below to choose your seat on the train to {city} on {day}.
    because of the strike, you may change your ticket to {city} for free until {day}.
    # work: dear colleagues, please click the link below and choose your shifts for {month} by {day}.
    congratulations to {name}, who has won our safety prize: there is cake in the canteen at {time}.
    to all staff: [the canteen is closed|there is no hot water in the factory] on {day}.
    dear applicant, thank you for your interest in the position; we will reply within {hours} hours.
    urgent notice from IT: save your files and log out before {time}, when the office server restarts.
    # family: dear parents, the school [is closed|ends at noon] on {day}.
    dear parents, who can offer a [cake|salad] for the kindergarten's party on {day}? Just reply with yes.
    dear parents, your child has won a place in the school choir; please confirm it by {day}.
    # family;health: dear parents, there is [scarlet fever|chickenpox] in class again, so please watch your children.
    # family;money: dear parents, the school lunches in {month} come to {amount}; please transfer the money by {day}.
    # family;travel: dear parents, the bus for the class trip to {city} leaves on {day} at {time}.
    # health;money: for your treatment in {month} Dr {doctor} charges {amount}, to be paid by {day}.
    # health;work: free flu shots for all staff on {day} from {time} in the meeting room: no appointment needed.
    # money;travel: dear guest, the refund of {amount} for your cancelled trip to {city} has left our account.
    # money;work: dear colleagues, the wages for {month} will be in your accounts on {day}.
    # travel;work: to all staff at the fair in {city}: the bus to the hotel leaves at {time}.""",
    "test": """
    # money: we could not collect the {amount} for {month} from your account; please check your balance by {day}.
    your savings plan has been changed as you asked, and no fee is due.
    # health: this is to remind you of your check with Dr {doctor} on {day}; if you cannot come, reply with NO.
    your blood test is back, and Dr {doctor} would like to talk to you on {day}.
    # travel: your train to {city} leaves from another platform on {day}; your seats stay the same.
    we offer all guests of the cancelled ferry to {city} a free bed for tonight.
    # work: dear team, click below by {day} to vote on the new shift plan.
    dear applicant, you have won us over: are you free for an interview in our office on {day}?
    # family: dear parents, the class photo is on {day}, and each child brings a [chair|hat].
    dear parents, the nursery stays closed on {day}, so please keep your children at home.
    # family;money: dear parents, the class needs {amount} from each of you by {day} for the school play.
    # health;work: to all staff: Dr {doctor} checks your eyes for free on {day}, in the office next to the stairs.
    # money;travel: because your flight to {city} was delayed, we will pay {amount} into your account by {day}.""",
}
SPAM = {
    "train": """
    # money;spam: do you need cash by {day}? We lend up to {sum} to everyone, and nobody asks about your debts.
    dear customer, your account has been locked: confirm your [password|card number] below within {hours} hours.
    congratulations, you have won {sum}: send us your bank details and a fee of {amount} to claim the prize.
    a refund of {amount} is waiting for you: type in your card number and PIN below.
    I am the lawyer of a man who left {sum}, and a third of it is yours if I may use your account.
    turn {amount} into {sum} by {day}: our system has never lost.
    your parcel is held back until you pay {amount}, so click the link below today.
    swap your old loan for ours and save {amount} a month, even if your bank has said no.
    I paid off my mortgage in a month with the trick below, and so can you.
    [watches|shoes|phones] at half price, but only until {time}: order from us before they are gone.
    pay the {amount} that you owe by {day} with gift cards, or we take you to court.
    # health;spam: lose [five|ten] kilos by {day} without hunger: our tea [melts the fat|does the work].
    no doctor will tell you this: our oil cures [back pain|a bad knee|high blood pressure] overnight.
    order our drops against [tired eyes|hair loss] today, and the second bottle is free: no prescription needed.
    my knee was ruined until I tried the cream below; order it, too, while the free trial lasts.
    you have been chosen to try our [sleep|heart] tablets for free: reply with YES before {day}.
    is your back stiff? Our belt does more than any treatment, and you can try it for free until {day}.
    # spam;travel: your free flight to {city} is waiting: click below before the seats are gone.
    you have been chosen for a free cruise [around the islands|to {city}]: reply with YES within {hours} hours.
    blue sky, empty beaches, the last rooms: book our dream week near {city} before {day}.
    your hotel booking in {city} will be lost unless you confirm your password below.
    pack your suitcase: our club gives away {number} trips to {city}, and one has your name on it.
    # spam;work: your office mailbox is full: type in your password below within {hours} hours, or it will be deleted.
    work from your sofa, with no boss and no fixed hours: we still have {number} positions, so reply with YES.
    we liked your profile and offer you a job without an interview: send us a copy of your passport by {day}.
    become a manager in six weeks: our course opens every door, and the first lesson is free.
    # money;spam;travel: [three|five] nights in {city} for {amount}: our offer ends on {day}, so click below.
    you have won a trip to {city}: pay the fee of {amount} by {day}, and we send you the tickets.
    our members fly to {city} for {amount}: join the club by {day} and pay half.
    # money;spam;work: earn {amount} a day from home: we hire everyone, no experience needed.
    your boss here, in a meeting until {time}: buy gift cards for {amount} and send me the codes.
    quit your job: our traders make {amount} before breakfast, and you can start on {day}.
    # health;money;spam: our health insurance takes everyone, sick or well, for {amount} a month: sign below by {day}.
    why pay {amount} at the pharmacy? Our tablets do the same for half, and no doctor asks questions.
    # family;money;spam: hi Grandpa, I need {amount} at once: a friend will fetch the cash, and please do not tell Mum.
    hi Mum, my phone is broken and this is my new number: transfer {amount} to the account below before {time}.
    protect your children with our life insurance: {amount} a month, and the first month is free.""",
    "test": """
    # money;spam: we noticed a new login to your account, so enter your PIN on the page below to keep it open.
    your number was drawn, and {sum} can be in your account on {day}: all we need is your card number.
    our experts double your savings in ten days; start with {amount}.
    no job, no bank, no problem: sign here and have {sum} in your hands by {day}.
    a tax refund of {amount} is waiting for you, and we send it as soon as we have your password.
    I want to give away my savings of {sum} and have chosen you, so send me your account number.
    bags and coats, now {amount} off: visit our shop before it closes at {time}.
    # health;spam: forget the gym: with our powder you lose a kilo a day, and the first box is free.
    even the clinics are amazed: our leaf cures the pain in your [back|neck|knee] within {hours} hours.
    is your hearing bad? No doctor will tell you of our tiny device, so try it for free until {day}.
    I had a headache every day until a friend sent me these capsules; click below and try them for free.
    # spam;travel: we find hotel rooms that no guide will show you, so become one of us by {day}.
    a palm beach and five stars: your free week in {city} is booked, and we only need your passport number.
    you have been drawn for two free seats to {city}: claim them within {hours} hours, or someone else will fly.
    # spam;work: you are hired, without any questions: just send us a copy of your passport by {day}.
    your colleagues have already done it: enter your office password below, or lose your files at {time}.
    be your own boss with our course: the first {number} to reply get a free place.
    # money;spam;travel: was your flight late? We get you {amount} for every hour if you pay a small fee first.
    {city} and back for {amount}: the seats are gone at {time}, so click now.
    # money;spam;work: we pay {amount} a week for an hour of easy work: all you need is a phone and a bank account.
    leave the office for good: we show you how to make {amount} a day on the beach.
    # health;money;spam: our capsules keep your heart young for {amount} a month, and you get a second box free.
    perfect teeth without a dentist: our offer of {amount} ends on {day}, so choose your smile now.
    # family;money;spam: your kids deserve the best: start our savings plan with {amount} by {day} and get a free toy.
    hello Dad, I am writing from my new number: pay {amount} into the account below for me, and do not call.""",
}

# Sentences without a topic: ends and asides of a personal message, ends of a notice ("courtesy"), of spam that a
# firm seems to write ("push") and of spam that a person does ("plea").
NEUTRAL = {
    "train": """
    # end: see you soon. / sorry for the late answer. / talk to you [tonight|on {day}]. / best wishes, {name}
    [thanks a lot|many thanks], {name} / let me know what you think. / the rest when we meet. / I am free after {time}.
    I will call you at {time}. / reply with yes or no, please. / it is urgent, so call me before {time}.
    the link to the pictures is below. / tell nobody about it, please. / this is not a joke. / it only takes a minute.
    do not wait for me. / trust me, I have checked. / this is your last chance to say no.
    and congratulations, you were right. / click on the smiley if that is fine with you.
    I must hear from you by {time}. / this message is meant for you alone.
    # aside: leave the key under the mat, please. / my phone is out of charge, so send all messages to {name}.
    can you transfer the pictures to my new laptop? / our side won two to one, and it rained from start to end.
    the picnic is on the river bank at {time}. / the radio does not work any more. / the garden gate has to be painted.
    I am stuck at the last boss of the game, so do not tell me the end. / on account of the rain we stayed in on {day}.
    we have built a hotel for bees, and it is full. / I have read your book twice. / {name} wants the chess board back.
    I am sick of this rain. / the puppy is easy to train, says {name}. / the cat expects special treatment on {day}.
    there is only a flight of stairs, and no lift, at {name's} place. / thanks for your company on {day}.
    it is cold in here, even with two sweaters. / the film won a prize, but I fell asleep.
    there is free soup after the concert on {day}. / your parcel is held for you at number {number}, next door.
    the [tennis court is free|chess club is open to new members] from {time}. / I had a dream about you and a lion.
    I am reading a book of [900|4000] pages, or so it feels.
    the codes for the gates [are in the drawer|have changed].
    # courtesy: thank you for your patience. / have a good day. / if you have questions, call us before {time}.
    kind regards, {name}
    # push: do not wait. / we must hear from you by {time}. / this message is meant for you alone. / trust us.
    tell nobody about it. / to stop our messages, reply with STOP. / this is not a joke. / it only takes a minute.
    this is your last chance. / best wishes, {name}
    # plea: do not wait. / tell nobody about it. / this is not a joke. / it only takes a minute. / trust me.""",
    "test": """
    # end: until then, {name} / you know where to find me. / I have to run, more on {day}. / call me or just say yes.
    sorry that I missed your call. / keep it to yourself for now. / no need to answer. / you can trust {name} on this.
    any time before {time} is fine. / there is no catch, I promise. / click below to see my new haircut.
    do call me tonight, tomorrow is too late.
    # aside: the doorbell does not work, so knock. / {name} has put the surfing board in your garage.
    the [drawers|shelves] are too heavy on one side, so mind the balance. / I cannot get that tune out of my head.
    the bird has a yellow bill and sings all day. / would you book us a table for {time}?
    the debate on {day} was a waste of breath. / our neighbors won the prize for the best roses.
    I take no interest in football, sorry. / the traffic lights are out of operation.
    there are {number} steps up to the tower.
    # courtesy: have a pleasant day. / with kind regards, {name} / thank you for your trust.
    # push: tomorrow is too late. / there is no catch. / you can trust us. / keep it to yourself.
    no further message will be sent. / to leave our list, reply with END. / all the best, {name}
    # plea: keep it to yourself. / there is no catch. / tomorrow is too late.""",
}


def words(text: str) -> list[str]:
    """The entries of a list written with commas."""
    return [word.strip() for word in text.split(",")]


# Relatives by the pronoun that stands for them. The test part has those of train and its own.
RELATIVES = {
    "train": {
        "elder": {"she": words("Mum, Grandma, my aunt"), "he": words("Dad, Grandpa")},
        "sibling": {"she": words("my sister, my cousin Lena"), "he": words("my brother, my cousin Max")},
        "child": {"she": words("our daughter, my niece"), "he": words("our son, my nephew")},
    },
    "test": {
        "elder": {"she": words("my stepmother, Granny"), "he": words("my uncle, my father-in-law")},
        "sibling": {"she": words("my half-sister, my twin sister"), "he": words("my stepbrother, my twin brother")},
        "child": {"she": words("our eldest girl, my goddaughter"), "he": words("our little boy, my godson")},
    },
}
PRONOUNS = {"she": {"he": "she", "his": "her", "him": "her"}, "he": {"he": "he", "his": "his", "him": "him"}}
NAMES = {
    "train": words("Anna, Ben, Carla, David, Emma, Felix, Greta, Hanna, Jonas, Karim, Lucy, Marco, Nina, Omar, Paula"),
    "test": words("Alice, Bruno, Chloe, Dario, Elsa, Frank, Iris, Julian, Mona, Pedro"),
}
DOCTORS = {"train": words("Lund, Abara, Moreau, Keller"), "test": words("Osei, Brandt, Silva")}
CITIES = {
    "train": words("Lisbon, Oslo, Rome, Prague, Vienna, Dublin, Madrid, Athens, Zurich, Hamburg"),
    "test": words("Porto, Bergen, Naples, Krakow, Seville, Graz"),
}
FIRMS = {
    "train": words("Velmora, Tarnow Foods, Brimley Steel, Corvano, Hollin and Dray, Sarbeck"),
    "test": words("Quavern, Pimley Glass, Zelgor, Fenwater"),
}
DAYS = words("Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday")
MONTHS = words("January, February, March, April, May, June, July, August, September, October, November, December")
TIMES = words("eight, half past nine, ten, half past eleven, noon, two, a quarter past three, five, half past six")
HOURS = words("12, 24, 36, 48, 72")
AMOUNTS = words("30, 45, 60, 75, 80, 120, 150, 200, 250, 300, 400")
SUMS = words("4000, 6500, 9000, 15000, 20000, 50000")
CURRENCIES = {"train": words("euros, dollars, pounds"), "test": words("euros, dollars, crowns")}
LISTS = {"name": NAMES, "doctor": DOCTORS, "city": CITIES, "firm": FIRMS}
SHARED = {"day": DAYS, "month": MONTHS, "time": TIMES, "hours": HOURS, "number": AMOUNTS}

GREETINGS = {"train": ["hi {name}, ", "hello {name}, ", "hello, ", "{name}, "], "test": ["good day {name}, ", "hi, "]}
LINKS = {"train": ["also, ", "by the way, ", "oh, and ", "and "], "test": ["apart from that, ", "and ", "besides, "]}
UNPREFIXED = ("hi ", "hello ", "dear ", "urgent", "to all ", "free ", "greetings", "congratulations", "sorry")
PERSONAL_SPAM = ("hi ", "hello ", "I ", "my ", "your boss ")


@dataclass(frozen=True)
class Message:
    """A text, its labels in alphabetical order, and the frames that it was made from."""

    text: str
    labels: tuple[str, ...]
    frames: tuple[str, ...]


@cache
def sections(table: str) -> dict[str, list[str]]:
    """The frames of a table under each heading."""
    pairs = re.findall(r"# ([a-z;]+): ([^#]*)", table)
    return {heading: re.split(r" / |\n *", frames.strip()) for heading, frames in pairs}


class Writer:
    """Writes one message; no name, relative, day or other filling comes twice in it.

    Args:
        part: "train" or "test", whose frames and names are used.
        draw: where chance comes from.
    """

    def __init__(self, part: str, draw: random.Random) -> None:
        self.part, self.draw = part, draw
        self.used: set[str] = set()
        self.pronouns = PRONOUNS["she"]
        # Readers know what a bare number is of: "you still owe me 60".
        self.currency = f" {draw.choice(CURRENCIES[part])}" if draw.random() < 0.6 else ""

    def fresh(self, entries: Sequence[str]) -> str:
        """One of the entries that this message has not used yet."""
        entry = self.draw.choice([entry for entry in entries if entry not in self.used])
        self.used.add(entry)
        return entry

    def relative(self, kind: str) -> str:
        if kind == "kin":
            kind = self.draw.choice(["elder", "sibling"])
        own = self.part == "test" and self.draw.random() < 0.4
        relatives = RELATIVES["test" if own else "train"][kind]
        relative = self.fresh([name for names in relatives.values() for name in names])
        self.pronouns = PRONOUNS["she" if relative in relatives["she"] else "he"]
        return relative

    def gap(self, content: str) -> str:
        """The filling of one gap, given what stands between its braces."""
        if content.endswith("'s"):
            return self.gap(content[:-2]) + "'s"
        if content in self.pronouns:
            return self.pronouns[content]
        if content in LISTS:
            return self.fresh(LISTS[content][self.part])
        if content in SHARED:
            return self.fresh(SHARED[content])
        if content in ("amount", "sum"):
            return self.fresh(AMOUNTS if content == "amount" else SUMS) + self.currency
        return self.relative(content)

    def fill(self, frame: str) -> str:
        """The frame with its choices made, the innermost first, and its gaps filled."""
        while "[" in frame:
            frame = re.sub(r"\[([^\[\]]*)\]", lambda match: self.draw.choice(match[1].split("|")), frame)
        return re.sub(r"\{([^}]*)\}", lambda match: self.gap(match[1]), frame)

    def prefixed(self, prefixes: Sequence[str], frame: str) -> str:
        """The frame, perhaps with a greeting or a link before it."""
        if frame.startswith(UNPREFIXED) or self.draw.random() >= PREFIXED:
            return frame
        return self.fresh(prefixes) + frame


def groups(labels: tuple[str, ...], known: dict[str, list[str]], draw: random.Random) -> list[str]:
    """The labels divided among the sentences of a message: sets of labels for which there are frames."""
    if len(labels) == 1 or (";".join(labels) in known and draw.random() < JOINT):
        return [";".join(labels)]
    alone = draw.choice(labels)
    rest = tuple(label for label in labels if label != alone)
    return [alone, *groups(rest, known, draw)]


def draft(part: str, labels: tuple[str, ...], draw: random.Random) -> list[str]:
    """The frames of a message with these labels, in the order of its sentences."""
    heading, neutral = ";".join(labels), sections(NEUTRAL[part])
    formal = None
    if "spam" in labels:
        formal, chance = draw.choice(sections(SPAM[part])[heading]), PUSH
        ends = neutral["plea" if formal.startswith(PERSONAL_SPAM) else "push"]
    elif heading in (notices := sections(NOTICES[part])) and draw.random() < NOTICE:
        formal, ends, chance = draw.choice(notices[heading]), neutral["courtesy"], COURTESY
    if formal is not None:
        return [formal, draw.choice(ends)] if draw.random() < chance else [formal]

    personal = sections(PERSONAL[part])
    if len(labels) == 1:
        frames = draw.sample(personal[heading], 2 if draw.random() < SECOND else 1)
    else:
        frames = [draw.choice(personal[group]) for group in groups(labels, personal, draw)]
    draw.shuffle(frames)
    if draw.random() < ASIDE:
        frames.insert(draw.randrange(len(frames) + 1), draw.choice(neutral["aside"]))
    if draw.random() < END:
        frames.append(draw.choice(neutral["end"]))
    return frames


def write_message(part: str, labels: tuple[str, ...], draw: random.Random) -> Message:
    frames, writer = draft(part, labels, draw), Writer(part, draw)
    neutral = sections(NEUTRAL[part])
    sentences = []
    for position, frame in enumerate(frames):
        if position == 0:
            sentence = writer.prefixed(GREETINGS[part], frame)
        elif any(frame in neutral[kind] for kind in ("end", "courtesy", "push", "plea")):
            sentence = frame
        else:
            sentence = writer.prefixed(LINKS[part], frame)
        sentences.append(writer.fill(sentence))
    text = re.sub(r"(^|[.?!] )([a-z])", lambda match: match[1] + match[2].upper(), " ".join(sentences))
    return Message(text, labels, tuple(frames))


def build(seed: int = 0) -> dict[str, list[Message]]:
    """Both parts, no text twice."""
    draw = random.Random(seed)
    weights = {heading: float(weight) for heading, weight in re.findall(r"([a-z;]+) ([\d.]+)", WEIGHTS)}
    seen: set[str] = set()
    parts: dict[str, list[Message]] = {}
    for part, size in SIZES.items():
        messages: list[Message] = []
        while len(messages) < size:
            heading = draw.choices(list(weights), weights=list(weights.values()))[0]
            message = write_message(part, tuple(heading.split(";")), draw)
            fits = (
                WORDS_MIN <= len(message.text.split()) <= WORDS_MAX
                and len(re.findall(r"[.!?](?: |$)", message.text)) <= SENTENCES_MAX
            )
            if fits and message.text not in seen:
                seen.add(message.text)
                messages.append(message)
        parts[part] = messages
    return parts


def write(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for part, messages in build().items():
        with open(folder / f"{part}.csv", "w", encoding="utf-8", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(["text", "labels"])
            table.writerows((message.text, ";".join(message.labels)) for message in messages)


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "messages")
