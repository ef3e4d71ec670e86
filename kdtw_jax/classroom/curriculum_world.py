"""Objectives in science, language, geography, history and music; `curriculum_numbers` says how they are written."""

WORLD = """
plants, grade 2
plant-parts: name the parts of a plant
  draw a plant with its roots | design a plant for the world of {i}
  Which part takes up water? | Where are the seeds?
plant-needs < plant-parts: say what a plant needs to grow
  grow beans in light and in the dark | write a care card for a plant named after {i}
  What happens without light? | Which three things does a plant need?
life-cycle < plant-parts: put the life of a plant in order
  sort pictures from seed to flower | draw a comic of {i} that follows a seed
  What comes after the seedling? | Where do new seeds come from?
seeds-travel < life-cycle: explain how seeds travel
  blow, throw and float seeds | invent a seed that travels to {i}
  How does a dandelion spread its seeds? | Why do some seeds have hooks?

weather, grade 3
observe-weather: observe and record the weather
  read a thermometer every day | write a weather report for {i}
  Which tool measures temperature? | How do we record wind?
clouds < observe-weather: tell clouds apart
  draw the clouds of a week | paint the sky above {i}
  Which cloud brings rain? | Which cloud looks like a feather?
water-cycle < clouds: explain the way of water
  make rain in a jar | tell the travels of a drop that meets {i}
  What makes water rise into the air? | What is a cloud made of?
forecast < observe-weather: read a weather map
  match signs with words | present the forecast for a day of {i}
  What does a sign with a sun and a cloud mean? | How sure is a forecast?

electricity, grade 4
use-safely: use electricity safely
  look for dangers in a picture of a kitchen | draw a warning sign with {i}
  Why must hands be dry? | Who may open a socket?
circuit < use-safely: build a simple circuit
  light a bulb with a battery | light up a model of {i}
  Why must a circuit be closed? | What does the battery do?
switch < circuit: add a switch
  make a switch of a paper clip | build an alarm that guards {i}
  What does a switch do to the circuit? | Where can a switch stand?
conductors < circuit: test what conducts
  test spoons, wood and glass | choose materials for a robot of {i}
  Does a coin conduct? | Why are wires covered with plastic?
circuit-diagram < switch: draw a circuit diagram
  turn circuits into signs | draw the plan of the lights for {i}
  What is the sign for a bulb? | What is missing in an open circuit?

matter, grade 5
states: describe solids, liquids and gases
  sort things from the kitchen | sort things from {i} into three boxes
  Which state keeps its shape? | Is sand a liquid?
melting < states: explain melting and freezing
  melt ice in the hand and in water | make ice figures of {i}
  At which temperature does water freeze? | Does melting make a new substance?
boiling < states: explain boiling and condensing
  watch steam on a cold plate | describe a steam engine for {i}
  What is in the bubbles of boiling water? | Why does a mirror mist up?
mixtures < states: separate mixtures
  filter sand from water | rescue a treasure of {i} from sand and iron
  How can salt come back out of water? | What does a magnet take out?
particles < melting boiling: explain states by particles
  act out particles in the hall | draw a comic of {i} about particles
  What do particles do when they get warmer? | Where are particles packed closest?

planets, grade 5
day-night: explain day and night
  turn a globe before a lamp | plan a day of {i} in two time zones
  What makes the sun rise? | Is it night everywhere at once?
moon-phases < day-night: explain the phases of the moon
  hold a ball before a lamp | draw the moon above {i} for a month
  Where is the sun at full moon? | How long is it from new moon to new moon?
seasons < day-night: explain the seasons
  tilt a globe before a lamp | write a calendar of {i} for both halves of the earth
  Is it summer because the sun is nearer? | Which season is it in Australia in December?
solar-system: put the planets in order
  pace out distances in the yard | plan a trip of {i} from planet to planet
  Which planet is nearest to the sun? | Which planet is the largest?

ecosystems, grade 6
habitats < plant-needs: describe a habitat
  map the life below a tree | design a habitat for {i}
  What does a habitat give to an animal? | Why do fish not live in trees?
food-chains < habitats: build a food chain
  link pictures with arrows | invent a food chain for the world of {i}
  What does an arrow mean? | With what does every chain begin?
food-webs < food-chains: join chains to a web
  tie cards together with wool | make a web of who eats whom in {i}
  What happens when one link is taken away? | Who has two kinds of food?
adaptation < habitats: explain how living things are adapted
  match beaks with food | give {i} a body for the desert
  Why do polar bears have thick fur? | What helps a cactus to keep water?
human-impact < food-webs adaptation: judge what people change
  hold a meeting about a new road | write a letter for {i} to save a pond
  What does litter do to a web? | Which change helps and which harms?

forces, grade 7
kinds-of-force: name forces and draw arrows
  push and pull with spring scales | draw the forces on a jump from {i}
  In which unit is force measured? | What does the length of an arrow say?
gravity < kinds-of-force: tell mass from weight
  weigh stones on a spring scale | compare the weight of {i} on earth and moon
  What is the weight of 2 kg on earth? | Does mass change on the moon?
friction < kinds-of-force: explain friction
  pull a shoe over three floors | choose tyres for a race of {i}
  When is friction useful? | What does oil do?
balanced < friction gravity: explain balanced forces
  hold a tug of war with scales | explain a trick from {i} with two arrows
  What moves a book that lies still? | What happens when two equal forces meet?

sentences, grade 2
capitals: begin with a capital and end with a mark
  mend sentences on the board | write three sentences about {i}
  What comes at the end of a question? | Where is the capital?
nouns: find nouns
  label things in the classroom | collect names of things from {i}
  Which word is a noun in the dog runs? | Is yellow a noun?
verbs: find verbs
  act out verbs for others to guess | list what {i} can do
  Which word is the verb in birds sing? | Can a sentence do without a verb?
joining < capitals nouns verbs: join two sentences
  join strips with and, but, because | tell about {i} with because
  Which word joins a reason? | How do you join it rained and we stayed in?

stories, grade 3
characters < nouns: describe a character
  draw a character and write around it | describe a hero of {i}
  How can we show that someone is kind? | What does the character want?
setting < nouns: describe where a story takes place
  write with all five senses | describe a place from {i}
  What can be heard there? | Which words show the time of the story?
plot < joining: plan beginning, middle and end
  put mixed pictures in order | plan a story about {i} in three boxes
  What is the problem of the story? | Where is it solved?
dialogue < characters: write what characters say
  put speech bubbles into sentences | write a talk between two fans of {i}
  Where do the speech marks stand? | Who is speaking?
draft < plot setting dialogue: write and improve a story
  read drafts to a partner | write the story about {i} and mend two sentences
  Which word can be stronger? | Does the end answer the beginning?

poetry, grade 4
rhyme: find rhymes
  play a game of pairs of rhymes | find rhymes for words about {i}
  What rhymes with light? | Must every poem rhyme?
syllables: count syllables and beats
  clap names in syllables | clap and count words about {i}
  How many syllables does elephant have? | Where is the beat in banana?
similes < characters: write comparisons
  finish as cold as | compare {i} with three things
  Which two things are compared in as brave as a lion? | What does like do in a comparison?
poem < rhyme syllables similes: write a poem
  write a poem of three lines | write and perform a poem about {i}
  Which picture does the poem paint? | Where do the lines break?

arguments, grade 6
opinion < joining: tell facts from opinions
  sort cards of facts and opinions | find facts and opinions about {i}
  Is cats are the best pets a fact? | How can a fact be checked?
reasons < opinion: support an opinion with reasons
  write three reasons on a hand | argue that {i} should be a school subject
  Which reason is the strongest? | Which word introduces a reason?
other-side < opinion: answer the other side
  change sides in a debate | answer someone who finds {i} boring
  What would the other side say? | How does a writer answer it?
essay < reasons other-side: write an argument
  plan an argument in four boxes | write a letter to the head about {i}
  What does the first paragraph say? | What belongs in the last one?

maps, grade 3
plan-view: draw things from above
  draw a desk from above | draw a plan of a room for {i}
  What does a cup look like from above? | Why has a plan no walls that stand?
map-key < plan-view: use signs and a key
  invent signs for the school | draw a map of {i} with a key
  What does a key explain? | Which sign could stand for a church?
compass: use the compass directions
  turn to the directions in the yard | hide a treasure of {i} by directions
  What is opposite to north? | Where does the sun set?
grid < plan-view: find places by a grid
  play a game of squares on a grid | find the heroes of {i} on a grid
  What is in B3? | Which comes first, the letter or the number?
route < map-key compass: describe a route
  walk a route around the school | guide a partner on a map of {i}
  Which way do we turn at the bridge? | Which signs help on the way?

rivers, grade 5
river-parts < map-key: name the parts of a river
  build a river in a tray of sand | draw a river that runs through {i}
  Where does a river begin? | What is its mouth?
erosion < river-parts: explain how a river shapes land
  pour water over sand and stones | tell how a river carried off a statue of {i}
  Where is a bend worn away? | What does slow water drop?
floods < river-parts water-cycle: explain floods
  pour rain on grass and on stone | write a warning for a festival of {i}
  Why does a road let less water in than grass? | Which months bring floods?
river-use < river-parts: say how people use rivers
  sort pictures of dams, ports and fields | plan a harbour for {i}
  Why do many cities stand at rivers? | What does a dam do?

climate, grade 7
climate-weather < forecast: tell climate from weather
  compare a day with thirty years | plan what fans of {i} pack for two countries
  Is one cold day climate? | How many years make a climate?
zones < climate-weather seasons: describe climate zones
  colour zones on a world map | move {i} to three zones
  Why is it hot at the equator? | Which zone has no summer?
climate-graph < climate-weather charts: read a climate graph
  match graphs with cities | draw a graph for the home of {i}
  What do the bars show? | Which month is the driest?
warming < zones climate-graph: explain why the climate warms
  compare a jar with a lid and one without | make a poster with {i} about saving energy
  What do greenhouse gases do? | Which graph shows the warming?

timelines, grade 4
before-after: put events in order
  order photos of a family | order five events from {i}
  What happened first? | Which word shows what came later?
centuries < before-after: count in decades and centuries
  hang a century on the wall | find the decade of {i}
  In which century is 1850? | How many decades are in a century?
evidence < before-after: ask what old things tell
  guess the use of old tools | bury and find things of {i}
  What can a coin tell? | What can it not tell?
sources < evidence: compare two reports
  read two letters about one day | write two reports of one match of {i}
  Why do the reports differ? | Who was there?

rhythm, grade 3
pulse: keep a steady beat
  walk to a drum | tap the beat of a song about {i}
  What is a beat? | Does the beat get faster when it gets louder?
note-values < pulse: tell long notes from short ones
  clap and say long and short | turn words about {i} into notes
  How many quarter notes last as long as a half note? | Which note is shorter?
rests < pulse: read rests
  play a game of silence and sound | leave gaps in a chant about {i}
  What do we do in a rest? | How long is a quarter rest?
own-rhythm < note-values rests: write a rhythm of four beats
  lay rhythms with cards | write and clap a rhythm for {i}
  Are there four beats? | Which two notes could change places?

melody, grade 4
pitch: tell high from low
  draw a tune in the air | sing a call of {i} high and low
  Which note is higher? | What happens to the pitch of a shorter string?
staff < pitch note-values: read notes on a staff
  stand on five lines on the floor | write the start of a song about {i}
  Which note is on the second line? | How many lines does a staff have?
steps-leaps < pitch: hear steps and leaps
  walk steps and jump leaps | find a leap in the music of {i}
  Is this a step or a leap? | Which is easier to sing?
tune < staff steps-leaps: make up a tune
  answer a tune with a tune | compose a tune for {i}
  Does the tune come home at the end? | Where is its highest note?
"""
